"""Structured pairs of numbers: sums that random pairs hardly ever show.

Random bits carry over a few places at a time. A model that is right on all of them can still be wrong on a carry that
runs through a thousand places, on a long run of zeros or on a repeated pattern. These pairs cover such cases.

A pair is the sequence of its symbols (bit of a, bit of b), least significant first. `11` generates a carry, `00` kills
it, `01` and `10` propagate it.
"""

from typing import NamedTuple

# Up to this width a carry is generated, propagated and killed at every position; above it at five positions, so that
# the number of cases stays bounded.
EVERY_POSITION_UP_TO = 12


class Case(NamedTuple):
    """Two operands of at most `width` bits, and a name for their structure."""

    name: str
    a: int
    b: int


def structured_cases(width: int) -> list[Case]:
    """The structured pairs of operands of at most `width` bits, each pair once, the most revealing ones first.

    The list has at most 24 + 3 * EVERY_POSITION_UP_TO cases for any width.

    >>> structured_cases(3)[0]
    Case(name='carry chain, ones first', a=7, b=1)

    Raises:
        ValueError: `width` is less than 1.
    """
    if width < 1:
        raise ValueError(f"width = {width}: a number has at least 1 bit")
    cases: dict[tuple[int, int], Case] = {}
    for case in [*_chains(width), *_words(width), *_extremes(width), *_zero_runs(width), *_carries(width)]:
        cases.setdefault((case.a, case.b), case)
    return list(cases.values())


def positions(width: int) -> list[int]:
    """The positions at which a carry is generated, propagated and killed: all of narrow pairs, the ends and the middle
    of wide ones."""
    if width <= EVERY_POSITION_UP_TO:
        return list(range(width))
    return [0, 1, width // 2, width - 2, width - 1]


def from_symbols(*runs: tuple[str, int]) -> tuple[int, int]:
    """The pair (a, b) of a sequence of symbols, least significant first. A run is a block to repeat and the number of
    symbols to write.

    >>> from_symbols(("11", 1), ("01", 3))  # 1 + 1111
    (1, 15)
    """
    bits_a = bits_b = ""
    for block, count in runs:
        symbols = block.split()
        repeats = -(-count // len(symbols))
        bits_a += ("".join(symbol[0] for symbol in symbols) * repeats)[:count]
        bits_b += ("".join(symbol[1] for symbol in symbols) * repeats)[:count]
    return int(bits_a[::-1] or "0", 2), int(bits_b[::-1] or "0", 2)


def _chains(width: int) -> list[Case]:
    ones = 2**width - 1
    return [Case("carry chain, ones first", ones, 1), Case("carry chain, ones second", 1, ones)]


def _words(width: int) -> list[Case]:
    """Nine words that exposed most of the networks that were right on millions of random pairs."""
    half = width // 2
    rest = width - half
    words = {
        "11 then 01 repeated": [("11", 1), ("01", width - 1)],
        "11 then 10 repeated": [("11", 1), ("10", width - 1)],
        "01 repeated then a chain": [("01", half), ("11", 1), ("01", rest - 1)],
        "10 repeated then a chain": [("10", half), ("11", 1), ("01", rest - 1)],
        "00 repeated then a chain": [("00", half), ("11", 1), ("01", rest - 1)],
        "11 repeated": [("11", width)],
        "11 repeated then 00 and a chain": [
            ("11", half),
            ("00", 1),
            ("11", min(1, rest - 1)),
            ("01", max(0, rest - 2)),
        ],
        "01 10 alternating": [("01 10", width)],
        "01 10 alternating after a carry": [("11", 1), ("01 10", width - 1)],
    }
    return [Case(name, *from_symbols(*runs)) for name, runs in words.items()]


def _extremes(width: int) -> list[Case]:
    ones = 2**width - 1
    even, odd = from_symbols(("10 01", width))
    return [
        Case("all zeros", 0, 0),
        Case("largest and zero", ones, 0),
        Case("zero and largest", 0, ones),
        Case("largest and largest", ones, ones),
        Case("alternating bits, opposite", even, odd),
        Case("alternating bits, opposite, swapped", odd, even),
        Case("alternating bits from position 0, equal operands", even, even),
        Case("alternating bits from position 1, equal operands", odd, odd),
    ]


def _zero_runs(width: int) -> list[Case]:
    top = 2 ** (width - 1)
    return [
        Case("zero run then a carry out", top, top),
        Case("zero run between the two ones", top, 1),
        Case("zero run between the two ones, swapped", 1, top),
        Case("zero run after a carry", top | 1, 1),
        Case("zero run between two carries", top | 1, top | 1),
    ]


def _carries(width: int) -> list[Case]:
    ones = 2**width - 1
    cases = []
    for position in positions(width):
        bit = 2**position
        cases += [
            Case(f"carry generated at {position}, propagated from there on", ones - bit + 1, bit),
            Case(f"carry propagated at {position}, generated elsewhere", ones, ones - bit),
            Case(f"carry generated at 0, killed at {position}", ones - bit, 1),
        ]
    return cases
