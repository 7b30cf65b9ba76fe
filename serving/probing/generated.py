"""Questions generated from a seed: random, structured and long ones, each with a known answer.

Of a hundred questions about 40 are random, 30 structured (components.task.patterns) and 28 propagating: nearly all of
their symbols leave the state unchanged, so the effect of one bit shows at the next deciding bit, however far away.
Lengths are log-uniform from 1 to MAX_BITS bits. The other two have LONG_BITS bits and are streamed, so that a state
crosses the borders of chunks. The first four questions are one of each kind.
"""

import itertools
import random
from collections.abc import Iterator

from components.task import patterns
from components.task.transducer import Transducer
from serving.probing.questions import Question

MAX_BITS = 4096
LONG_BITS = 20_000
_KINDS = ("random",) * 40 + ("structured",) * 30 + ("propagating",) * 28 + ("long",) * 2
_FIRST = ("structured", "random", "propagating", "long")
# Deciding bits of a propagating word.
_MAX_FLIPS = 3


def fresh(task: Transducer, seed: int, count: int | None = None) -> Iterator[Question]:
    """`count` questions, endless for None; always the same for the same arguments."""
    draw = random.Random(f"{task.name}/{seed}")
    kinds = itertools.chain(_FIRST, (draw.choice(_KINDS) for _ in itertools.count()))
    for kind in itertools.islice(kinds, count):
        length = LONG_BITS if kind == "long" else _length(draw)
        make = _MAKERS[draw.choice(_FIRST[:3]) if kind == "long" else kind]
        yield Question(*make(task, length, draw), length, streamed=kind == "long")


def _length(draw: random.Random) -> int:
    return min(MAX_BITS, int(2 ** draw.uniform(0, MAX_BITS.bit_length() - 1 + 1e-3)))


def _random(task: Transducer, length: int, draw: random.Random) -> tuple[int, int]:
    return draw.getrandbits(length), draw.getrandbits(length)


def _structured(task: Transducer, length: int, draw: random.Random) -> tuple[int, int]:
    case = draw.choice(patterns.structured_cases(length))
    return case.a, case.b


def _propagating(task: Transducer, length: int, draw: random.Random) -> tuple[int, int]:
    a = draw.getrandbits(length)
    # Addition propagates the carry where the bits differ; the other tasks propagate where they are equal.
    differing_keep = all(task.step(state, (0, 1))[1] == state for state in task.states)
    b = a ^ ((1 << length) - 1) if differing_keep else a
    for _ in range(draw.randint(1, _MAX_FLIPS)):
        b ^= 1 << draw.randrange(length)
    return a, b


_MAKERS = {"random": _random, "structured": _structured, "propagating": _propagating}
