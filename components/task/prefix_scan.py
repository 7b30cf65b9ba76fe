"""Runs a transducer over all positions of all words at once: a million steps in a few operations on big integers.

Each symbol maps states to next states. Composing these maps is associative, so about log2(T) rounds compute the maps of
all prefixes; in round k, position t composes its map with that of position t - 2^k (Ladner & Fischer 1980, "Parallel
Prefix Computation", J. ACM 27(4); Hillis & Steele 1986, "Data Parallel Algorithms", Comm. ACM 29(12)). Bit t of an
integer stands for position t. For each pair of states (s, s') one integer marks the positions whose map takes s to s'.
The words of a batch lie side by side in the same integers.

A word is two numbers, least significant bit first, followed by flushing zeros. Every task of components.task.transducer
has such words.
"""

from components.task.transducer import Transducer


def outputs(task: Transducer, a: int, b: int, count: int) -> int:
    """The integer whose bits are the first `count` outputs for the numbers `a` and `b` from 0 up; T + 1 for T-bit
    numbers.

    >>> from components.task.transducer import ADDITION
    >>> outputs(ADDITION, 13, 29, 6)
    42
    """
    size = -(-count // 8)
    mask = (1 << count) - 1
    row = outputs_of_rows(task, (a & mask).to_bytes(size, "little"), (b & mask).to_bytes(size, "little"), size)
    return int.from_bytes(row, "little") & mask


def outputs_of_rows(task: Transducer, a: bytes, b: bytes, size: int) -> bytes:
    """The outputs for many words, in rows of `size` little-endian bytes. Each row starts in the initial state."""
    positions = len(a) * 8
    first = int.from_bytes((b"\x01" + bytes(size - 1)) * (len(a) // size), "little")
    where = _symbols(int.from_bytes(a, "little"), int.from_bytes(b, "little"), (1 << positions) - 1)
    before = _states_before(task, where, first, 8 * size)
    written = 0
    for state, symbol, output, _ in task.table:
        if output:
            written |= where[symbol] & before[state]
    return written.to_bytes(len(a), "little")


def _symbols(a: int, b: int, everywhere: int) -> dict[tuple[int, ...], int]:
    """The positions of each symbol."""
    return {(1, 1): a & b, (1, 0): a & ~b, (0, 1): b & ~a, (0, 0): everywhere & ~(a | b)}


def _states_before(task: Transducer, where: dict[tuple[int, ...], int], first: int, steps: int) -> dict[int, int]:
    """The positions whose step starts from each state, in words of `steps` steps that begin at the bits of
    `first`."""
    maps = {(state, following): 0 for state in task.states for following in task.states}
    for state, symbol, _, following in task.table:
        maps[state, following] |= where[symbol] & ~first
        # A word starts in the initial state, whatever precedes it.
        if state == task.initial:
            for any_state in task.states:
                maps[any_state, following] |= where[symbol] & first
    reach = 1
    while reach < steps:
        maps = _composed(task.states, maps, reach)
        reach *= 2
    return {
        state: (maps[task.initial, state] << 1) & ~first | (first if state == task.initial else 0)
        for state in task.states
    }


def _composed(states: tuple[int, ...], maps: dict[tuple[int, int], int], reach: int) -> dict[tuple[int, int], int]:
    """Each position's map after that of the position `reach` before it; before position 0 the map is the identity."""
    start = (1 << reach) - 1
    earlier = {(state, via): (bits << reach) | (start if state == via else 0) for (state, via), bits in maps.items()}
    composed = {}
    for state, following in maps:
        composed[state, following] = 0
        for via in states:
            composed[state, following] |= earlier[state, via] & maps[via, following]
    return composed
