"""Numbers as people write them <-> integers of any size.

Python refuses to convert more than 4,300 decimal digits by default, and takes quadratic time for them. The conversions here
split a numeral in halves down to pieces that Python takes, and fast multiplication does the rest.
"""

_PIECE = 2000
_BASES = {"0x": 16, "0b": 2}


def parse(text: str) -> int:
    """The integer that `text` writes: decimal, or hexadecimal after 0x, or binary after 0b.

    Raises:
        ValueError: it is no such numeral, or negative; the text is one line for the user.
    """
    shown = text if len(text) <= 40 else f"{text[:20]}...{text[-10:]} ({len(text)} characters)"
    if text.startswith("-"):
        raise ValueError(f"{shown} is negative: a number has to be an integer from 0 up")
    base = _BASES.get(text[:2].lower(), 10)
    digits = text if base == 10 else text[2:]
    if not digits.isascii() or not digits.isalnum() or (base == 10 and not digits.isdigit()):
        raise ValueError(f"{shown!r} is no integer: write decimal digits, 0x and hexadecimal digits, or 0b and binary digits")
    try:
        return _decimal(digits) if base == 10 else int(digits, base)
    except ValueError as error:
        raise ValueError(f"{shown!r} is no number in base {base}") from error


def decimal(value: int) -> str:
    """`value` in decimal digits, after a minus where it is negative."""
    # One decimal digit is more than 3.32 bits.
    digits = _digits(abs(value), int(value.bit_length() / 3.32) + 1).lstrip("0") or "0"
    return f"-{digits}" if value < 0 else digits


def written(value: int) -> str:
    """An answer as text: True or False for a verdict, decimal digits for a number."""
    return str(value) if isinstance(value, bool) else decimal(value)


def _decimal(digits: str) -> int:
    if len(digits) <= _PIECE:
        return int(digits)
    low = len(digits) // 2
    return _decimal(digits[:-low]) * 10**low + _decimal(digits[-low:])


def _digits(value: int, count: int) -> str:
    if count <= _PIECE:
        return str(value).zfill(count)
    low = count // 2
    high_part, low_part = divmod(value, 10**low)
    return _digits(high_part, count - low) + _digits(low_part, low)
