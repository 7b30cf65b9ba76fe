"""Numerals <-> integers of any size: one grammar for the command line, standard input, files of pairs and CSV.

A numeral is decimal digits, 0x and hexadecimal digits, or 0b and binary digits, in either case, with leading zeros, a
sign and surrounding blanks if wanted. -0 is 0. Underscores, separators of thousands, fractions and the digits of other
scripts are refused.

Python refuses to convert more than 4,300 decimal digits by default, since its conversions take quadratic time. That
limit applies to the whole process and stays as it is: GMP converts long decimal numerals, in little more than linear
time. Python converts hexadecimal and binary numerals itself, without a limit and in linear time.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gmpy2

# Python always converts this many digits; its limit cannot be lower.
_SHORT = 640
_NUMERAL = re.compile(r"([+-]?)(0x(?=[0-9a-f])|0b(?=[01])|)([0-9a-f]+)", re.IGNORECASE)
_BASES = {"0x": 16, "0b": 2, "": 10}
_FORMATS = {16: "#x", 2: "#b"}


def parse(text: str) -> int:
    """The integer of a numeral, which may be negative.

    Raises:
        ValueError: it is not a numeral; the text is one line for the user.
    """
    match = _NUMERAL.fullmatch(text.strip())
    if not match:
        raise ValueError(
            f"{abbreviated(text)!r} is not an integer: write decimal digits, 0x and hexadecimal digits, or 0b and "
            "binary digits"
        )
    sign, prefix, digits = match.groups()
    base = _BASES[prefix.lower()]
    try:
        value = _decimal(digits) if base == 10 else int(digits, base)
    except ValueError as error:
        raise ValueError(f"{abbreviated(text)!r} is not a number in base {base}") from error
    return -value if sign == "-" else value


def operand(text: str) -> int:
    """The integer of a numeral that must not be negative.

    Raises:
        ValueError: it is not a numeral, or negative; the text is one line for the user.
    """
    value = parse(text)
    if value < 0:
        raise ValueError(f"{abbreviated(text)} is negative: a number must be a non-negative integer")
    return value


def abbreviated(text: str) -> str:
    """A numeral in a message: the middle of a long one is left out."""
    return text if len(text) <= 40 else f"{text[:20]}...{text[-10:]} ({len(text)} characters)"


def written(value: int, base: int = 10) -> str:
    """An answer as text: True or False for a verdict, else digits in base 10, or in base 16 or 2 after 0x or 0b."""
    if isinstance(value, bool):
        return str(value)
    if base != 10:
        return format(value, _FORMATS[base])
    # A decimal digit is more than 3 bits.
    return str(value) if value.bit_length() <= 3 * _SHORT else _gmp(value).digits()


def _decimal(digits: str) -> int:
    return int(digits) if len(digits) <= _SHORT else int(_gmp(digits))


def _gmp(value: int | str) -> "gmpy2.mpz":
    # Imported here, so that short sums start fast.
    import gmpy2

    return gmpy2.mpz(value)
