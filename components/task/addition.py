"""The facts of binary addition: numbers <-> bits, the full adder, the names of the features.

The generator, the checks, the trainer, the evaluation and the client all take them from here.

Bits are written least significant first: 13 = 1 + 4 + 8 is 1, 0, 1, 1 and 29 = 1 + 4 + 8 + 16 is 1, 0, 1, 1, 1.
Operands of T bits have a sum of T + 1 bits, whose last bit is the final carry: 13 + 29 = 42 at T = 5 is

    a    1 0 1 1 0
    b    1 0 1 1 1
    sum  0 1 0 1 0 1
"""

from collections.abc import Iterable

# A tf.Example of the datasets: int64 lists of T, T, T + 1 and 1 values. `sum` holds the outputs of the data's task
# (components.task.transducer) on the T pairs and a flushing (0, 0): the bits of a + b; the bits of a - b in two's
# complement, whose last bit is the sign; or, for a > b, the comparison of the bits so far at each step, whose last bit
# compares the numbers.
FEATURE_A = "a"
FEATURE_B = "b"
FEATURE_SUM = "sum"
FEATURE_LENGTH = "length"
FEATURES = (FEATURE_A, FEATURE_B, FEATURE_SUM, FEATURE_LENGTH)

# (bit of a, bit of b, carry in) -> (bit of the sum, carry out).
FULL_ADDER = {
    (0, 0, 0): (0, 0),
    (0, 0, 1): (1, 0),
    (0, 1, 0): (1, 0),
    (0, 1, 1): (0, 1),
    (1, 0, 0): (1, 0),
    (1, 0, 1): (0, 1),
    (1, 1, 0): (0, 1),
    (1, 1, 1): (1, 1),
}


def to_bits(value: int, length: int) -> list[int]:
    """The `length` bits of `value`, least significant first.

    >>> to_bits(13, 5)
    [1, 0, 1, 1, 0]

    Raises:
        ValueError: `value` is negative or needs more than `length` bits.
    """
    if value < 0:
        raise ValueError(f"{value} is negative: bitstrings stand for integers from 0 up")
    if value.bit_length() > length:
        raise ValueError(f"{abbreviated(value)} needs {value.bit_length()} bits, {length} are given")
    digits = format(value, "b")[::-1] if value else ""
    return [int(digit) for digit in digits] + [0] * (length - len(digits))


def from_bits(bits: Iterable[int]) -> int:
    """The integer whose bits, least significant first, are `bits`.

    >>> from_bits([0, 1, 0, 1, 0, 1])
    42

    Raises:
        ValueError: an element of `bits` is neither 0 nor 1.
    """
    bits = list(bits)
    for position, bit in enumerate(bits):
        if bit not in (0, 1):
            raise ValueError(f"bit {position} is {bit}, neither 0 nor 1")
    return int("".join("1" if bit else "0" for bit in reversed(bits)) or "0", 2)


def abbreviated(value: int, digits: int = 40) -> str:
    """`value` in decimal; if it is too long to read, in hexadecimal without its middle."""
    if value.bit_length() <= 3 * digits:
        return str(value)
    text = hex(value)
    return f"{text[: digits // 2]}...{text[-digits // 4 :]} ({value.bit_length()} bits)"
