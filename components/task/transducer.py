"""Finite transducers: the tasks that a cell can be trained for and proven to compute.

A transducer reads one symbol (a tuple of bits) per step, writes one bit and moves to its next state. Numbers come least
significant bit first. After the last bit the `flush` symbols bring out what the state still holds.

ADDITION      state: carry. Output: the bits of a + b; the flushed bit is the last carry.
SUBTRACTION   state: borrow. Output: the bits of a - b, in two's complement if a < b; the flushed bit is the sign.
COMPARISON    state and output: a > b so far, as a later bit outweighs all earlier ones. The last output is the result.

A proof has boxes of hidden states, each with a label: the (next state, output) of a step into it. A correct cell needs
to remember no more than this label. For addition the label is n = a_t + b_t + carry in 0..3, with the output n mod 2
and the next carry n div 2.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any

from components.task.addition import FULL_ADDER, from_bits

Symbol = tuple[int, ...]
Label = tuple[int, int]

PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclasses.dataclass(frozen=True)
class Transducer:
    """A deterministic, complete transducer with one output bit per step.

    `table` has the rows (state, symbol, output, next state), one for each state and symbol. `reading` gives the meaning
    of the outputs: an integer, "unsigned" or "signed" (two's complement), or a bool, which the "last" output alone
    gives. `symbol` and `meaning` are the task as Python writes and computes it, on integers from 0 up. `verb` names the
    task in a model's signatures (components.signatures) and on the command line.

    Raises:
        ValueError: the table lacks or repeats a row, or has an unknown state or symbol or an output that is not a bit.
    """

    name: str
    verb: str
    inputs: tuple[Symbol, ...]
    states: tuple[int, ...]
    initial: int
    table: tuple[tuple[int, Symbol, int, int], ...]
    flush: tuple[Symbol, ...]
    reading: str
    symbol: str
    meaning: Callable[[int, int], int]

    def __post_init__(self) -> None:
        wanted = [(state, symbol) for state in self.states for symbol in self.inputs]
        if sorted(row[:2] for row in self.table) != sorted(wanted):
            raise ValueError(
                f"{self.name}: the table needs exactly one row for each of {len(wanted)} states and symbols"
            )
        if self.initial not in self.states or not {row[3] for row in self.table} <= set(self.states):
            raise ValueError(f"{self.name}: the initial and the next states must be among {self.states}")
        if not {row[2] for row in self.table} <= {0, 1} or not set(self.flush) <= set(self.inputs):
            raise ValueError(f"{self.name}: outputs must be bits, and flush symbols among {self.inputs}")
        if self.reading not in ("unsigned", "signed", "last"):
            raise ValueError(f"{self.name}: reading = {self.reading!r} must be unsigned, signed or last")

    @functools.cached_property
    def _rows(self) -> dict[tuple[int, Symbol], tuple[int, int]]:
        return {(state, symbol): (output, following) for state, symbol, output, following in self.table}

    def step(self, state: int, symbol: Symbol) -> tuple[int, int]:
        """(output, next state) of one step. Raises KeyError for an unknown state or symbol."""
        return self._rows[state, symbol]

    def label(self, state: int, symbol: Symbol) -> Label:
        """The label of the box that the step leads into: (next state, output)."""
        output, following = self._rows[state, symbol]
        return following, output

    @functools.cached_property
    def labels(self) -> tuple[Label, ...]:
        """The reachable labels, sorted; box n of addition has label n = 0, 1, 2, 3."""
        labels: set[Label] = set()
        states = [self.initial]
        for state in states:
            reached = {self.label(state, symbol) for symbol in self.inputs}
            states += sorted({following for following, _ in reached} - set(states))
            labels |= reached
        return tuple(sorted(labels))

    def outputs(self, word: Iterable[Iterable[int]], state: int | None = None) -> list[int]:
        """The output for each symbol of `word`, from `state` or the initial state, without flushing."""
        state = self.initial if state is None else state
        written = []
        rows = self._rows
        for symbol in word:
            output, state = rows[state, tuple(symbol)]
            written.append(output)
        return written

    def value(self, outputs: Iterable[int]) -> int:
        """The meaning of the outputs for a whole word and its flush (see `reading`)."""
        outputs = list(outputs)
        return self.read(from_bits(outputs), len(outputs))

    def read(self, bits: int, count: int) -> int:
        """As `value`, for `count` outputs given as the bits of an integer.

        >>> SUBTRACTION.read(0b110000, 6)
        -16
        """
        last = bits >> (count - 1)
        if self.reading == "last":
            return bool(last)
        return bits - (last << count) if self.reading == "signed" else bits

    def statement(self, a: object, b: object, value: object) -> str:
        """The statement that the task's value for `a` and `b` is `value`, right or wrong; each may be text already.

        >>> SUBTRACTION.statement(13, 29, -16), COMPARISON.statement(13, 29, False)
        ('13 - 29 = -16', '13 > 29: False')
        """
        return f"{a} {self.symbol} {b}{':' if self.reading == 'last' else ' ='} {value}"

    def description(self) -> dict[str, Any]:
        """The transducer in JSON's types, for the certificate."""
        table = [[state, list(symbol), output, following] for state, symbol, output, following in self.table]
        return {
            "initial": self.initial,
            "table": table,
            "flush": [list(symbol) for symbol in self.flush],
            "reading": self.reading,
        }


def _over_pairs(
    name: str,
    verb: str,
    reading: str,
    symbol: str,
    meaning: Callable[[int, int], int],
    step: Callable[[int, int, int], tuple[int, int]],
) -> Transducer:
    table = tuple((state, pair, *step(*pair, state)) for state in (0, 1) for pair in PAIRS)
    return Transducer(name, verb, PAIRS, (0, 1), 0, table, ((0, 0),), reading, symbol, meaning)


def _subtract(a: int, b: int, borrow: int) -> tuple[int, int]:
    difference = a - b - borrow
    return difference % 2, int(difference < 0)


def _compare(a: int, b: int, verdict: int) -> tuple[int, int]:
    verdict = verdict if a == b else int(a > b)
    return verdict, verdict


ADDITION = _over_pairs("addition", "add", "unsigned", "+", operator.add, lambda a, b, carry: FULL_ADDER[a, b, carry])
SUBTRACTION = _over_pairs("subtraction", "subtract", "signed", "-", operator.sub, _subtract)
COMPARISON = _over_pairs("comparison", "compare", "last", ">", operator.gt, _compare)
TASKS = {task.name: task for task in (ADDITION, SUBTRACTION, COMPARISON)}
