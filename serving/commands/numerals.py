"""Numerals <-> integers of any size.

Python refuses to convert more than 4,300 decimal digits by default, since its conversions take quadratic time. That
limit applies to the whole process and stays as it is: GMP converts long decimal numerals, in little more than linear
time. Python converts hexadecimal and binary numerals itself, without a limit and in linear time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gmpy2

# Python always converts this many digits; its limit cannot be lower.
_SHORT = 640
_BASES = {"0x": 16, "0b": 2}
_FORMATS = {16: "#x", 2: "#b"}


def parse(text: str) -> int:
    """The integer of a numeral: decimal, hexadecimal after 0x, or binary after 0b.

    Raises:
        ValueError: it is not such a numeral, or negative; the text is one line for the user.
    """
    shown = text if len(text) <= 40 else f"{text[:20]}...{text[-10:]} ({len(text)} characters)"
    if text.startswith("-"):
        raise ValueError(f"{shown} is negative: a number must be a non-negative integer")
    base = _BASES.get(text[:2].lower(), 10)
    digits = text if base == 10 else text[2:]
    if not digits.isascii() or not digits.isalnum() or (base == 10 and not digits.isdigit()):
        raise ValueError(
            f"{shown!r} is not an integer: write decimal digits, 0x and hexadecimal digits, or 0b and binary digits"
        )
    try:
        return _decimal(digits) if base == 10 else int(digits, base)
    except ValueError as error:
        raise ValueError(f"{shown!r} is not a number in base {base}") from error


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
