"""The exported model's loop over time: microseconds a call, bits a second, and memory, beside another model's.

python -m benchmarks.adding_loop [--against FOLDER] [--units 16] [--seconds 1.0]

The cell is exported as a proven one is, and runs in a session on the loaded SavedModel, as it does in the embedded server.
FOLDER holds the SavedModel that it is compared with, e.g. one that an older checkout exported; without it a plain loop is
taken, a step of the cell a turn. What the other model has no add_packed for is asked of its add_bits. The weights are random:
they do not change what a step costs, and no answer is looked at. Both models take turns, and the shortest time of each counts,
as everything else that the machine does only adds to it; the median beside it says how much it did.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from components import export, settings, signatures
from components.carry_select import CarrySelect
from components.gru import GRU
from components.transducer import ADDITION
from serving.loaded_model import LoadedModel

# (batch, bits of each number)
CASES = ((1, 16), (64, 16), (1, 1000), (1, 10**4), (1, 10**5), (1, 10**6), (1, 10**7))
# The longest that the other model is asked to add: step by step that takes minutes.
LONGEST_STEP_BY_STEP = 10**4
LARGE = (0, 10**6, 10**7)


class Times(NamedTuple):
    """Seconds of a call."""

    least: float
    median: float


def main(arguments: list[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adding_loop", description=__doc__.partition("\n")[0])
    parser.add_argument("--against", type=pathlib.Path, metavar="FOLDER", help="SavedModel to compare with (default: a plain loop)")
    parser.add_argument("--units", type=int, default=settings.Train().units)
    parser.add_argument("--seconds", type=float, default=1.0, help="spent on each case and model (default 1.0)")
    parser.add_argument("--memory", nargs=2, metavar=("FOLDER", "BITS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory:
        print(json.dumps(_memory(pathlib.Path(options.memory[0]), int(options.memory[1]))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        ours, other = pathlib.Path(folder, "ours"), options.against or pathlib.Path(folder, "plain")
        proof = settings.Proof()
        export.save(GRU(options.units, seed=1), str(ours), CarrySelect(ADDITION, proof.parallel_above, proof.chunk))
        if not options.against:
            save_plain(GRU(options.units, seed=1), str(other))
        _print_times(LoadedModel(ours), LoadedModel(other), options.seconds, LONGEST_STEP_BY_STEP if not options.against else max(LARGE))
        _print_memory(ours, other if options.against else None)
    return 0


def save_plain(cell: GRU, folder: str) -> None:
    """A SavedModel with add_bits alone, by the loop that training uses, without any check."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64)] * 2)
    def add_bits(a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        a, b = (tf.pad(operand, [[0, 0], [0, 1]]) for operand in (a, b))
        logits, _ = cell.run(a, b, cell.start(tf.shape(a)[0]))
        return {signatures.SUM: tf.cast(logits > 0, tf.int64)}

    tf.saved_model.save(cell, folder, signatures={signatures.ADD_BITS: add_bits})


def call(model: LoadedModel, signature: str, batch: int, bits: int) -> Callable[[], list[np.ndarray]]:
    """A function that adds the same random numbers each time, `batch` pairs of `bits` bits."""
    definition, dice = model.signatures[signature], np.random.default_rng(bits)
    if signature == signatures.ADD_BITS:
        inputs = {name: dice.integers(0, 2, (batch, bits)) for name in (signatures.A, signatures.B)}
    else:
        size = -(-bits // 8)
        inputs = {name: np.array([dice.bytes(size) for _ in range(batch)], object) for name in (signatures.A, signatures.B)}
        units = definition.inputs[signatures.STATE].tensor_shape.dim[1].size
        inputs[signatures.STATE] = np.zeros((batch, units), np.float32)
    feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
    fetches = [output.name for output in definition.outputs.values()]
    return lambda: model.run(feeds, fetches)


def in_turns(calls: list[Callable[[], object]], seconds: float) -> list[Times]:
    """The times of each call, so many seconds long, and thrice at least."""
    for each in calls * 2:
        each()
    taken: list[list[float]] = [[] for _ in calls]
    while min(map(sum, taken)) < seconds or len(taken[0]) < 3:
        for each, times in zip(calls, taken, strict=True):
            begin = time.perf_counter()
            each()
            times.append(time.perf_counter() - begin)
    return [Times(min(times), statistics.median(times)) for times in taken]


def _print_times(ours: LoadedModel, other: LoadedModel, seconds: float, longest: int) -> None:
    print("| signature | batch x bits | us a call: least, median | kbit/s | compared with: least, median | times as fast |")
    print("|---|---|---|---|---|---|")
    for batch, bits in CASES:
        for signature in (signatures.ADD_BITS, signatures.ADD_PACKED):
            if signature == signatures.ADD_BITS and bits > 10**6:
                continue
            calls = [call(ours, signature, batch, bits)]
            if bits <= min(longest, 10**6):
                known = signature if signature in other.signatures else signatures.ADD_BITS
                calls.append(call(other, known, batch, bits))
            found = in_turns(calls, seconds)
            compared = f"{_us(found[1])} | {found[1].least / found[0].least:.1f}" if len(found) > 1 else " | "
            speed = batch * bits / found[0].least / 1e3
            print(f"| {signature} | {batch} x {bits:,} | {_us(found[0])} | {speed:,.0f} | {compared} |", flush=True)


def _print_memory(ours: pathlib.Path, other: pathlib.Path | None) -> None:
    print("\n| model | bits of one number | most memory of a fresh process, MB |\n|---|---|---|")
    for name, folder in (("ours", ours), ("compared with", other)):
        for bits in LARGE if folder else ():
            if folder == other and bits > 10**6:
                continue
            command = [sys.executable, "-m", "benchmarks.adding_loop", "--memory", str(folder), str(bits)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"| {name} | {bits:,} | {json.loads(done.stdout.splitlines()[-1]):,.0f} |", flush=True)


def _memory(folder: pathlib.Path, bits: int) -> float:
    """MB that this process needed at most, for adding one pair of numbers (0 bits: for loading the model)."""
    model = LoadedModel(folder)
    signature = signatures.ADD_PACKED if signatures.ADD_PACKED in model.signatures else signatures.ADD_BITS
    if bits:
        call(model, signature, 1, bits)()
    # Not ru_maxrss, in which a process inherits what the one that started it needed.
    [peak] = [line.split()[1] for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(peak) / 1024


def _us(times: Times) -> str:
    return f"{times.least * 1e6:,.0f}, {times.median * 1e6:,.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
