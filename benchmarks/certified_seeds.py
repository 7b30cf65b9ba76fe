"""Training and proof for many seeds, each with its own data and weights, with every knob at its default.

python -m benchmarks.certified_seeds [FIRST] [LAST]     (1 to 100 without arguments)
"""

import pathlib
import statistics
import sys
import tempfile
import time
from typing import NamedTuple

from components.settings import Data, ProofSettings, Train
from components.task.transducer import ADDITION


class Row(NamedTuple):
    """One seed: steps until the first accepted certificate, the margin of the exported weights (None without), and the
    time it took.

    `wall` is from the first batch to the verdict on the export, without generating the data; `cpu` is the CPU
    time of all threads.
    """

    seed: int
    first: int | None
    steps: int
    margin: float | None
    wall: float
    cpu: float


def run(seed: int) -> Row:
    """Generate the data of `seed`, train on it, export, and prove the exported weights."""
    # The import of TensorFlow takes seconds, which must not count for the first seed.
    from components.data.shards import shard_path
    from components.data.tf_examples import write_records
    from components.model import export
    from components.proof import certificate, checker, finder
    from components.proof.weights import Weights
    from components.savedmodel import fingerprint
    from components.steps.example_gen import shard_records
    from components.training import loop

    with tempfile.TemporaryDirectory() as folder:
        data = Data(seed=seed, long_lengths=())
        files = {
            split: [shard_path(folder, split, shard, data.shards) for shard in range(data.shards)]
            for split in ("train", "eval")
        }
        for split, paths in files.items():
            pathlib.Path(paths[0]).parent.mkdir()
            for shard, path in enumerate(paths):
                write_records(path, shard_records(data, split, shard))
        wall, cpu = time.monotonic(), time.process_time()
        cell, outcome = loop.train(
            Train(seed=seed), files["train"], files["eval"], f"{folder}/logs", ProofSettings(), ADDITION
        )
        export.save(cell, f"{folder}/model")
        weights = Weights.of(fingerprint.weights(f"{folder}/model"))
        found = finder.find(weights).certificate
        verdict = checker.check(certificate.write(found), weights) if found else None
        margin = verdict.margin if verdict and verdict.proven else None
        return Row(seed, outcome.first, outcome.steps, margin, time.monotonic() - wall, time.process_time() - cpu)


def table(rows: list[Row]) -> str:
    """The rows in one line of Markdown, with its head."""
    certified = [row for row in rows if row.margin is not None]
    firsts = [row.first for row in certified if row.first] or [0]
    margins = [row.margin for row in certified] or [0.0]
    head = (
        "| seeds | certified | steps until certified: median, worst | margin: median, worst "
        "| train + prove, s | CPU time, s |"
    )
    seconds, cpu = [row.wall for row in rows], [row.cpu for row in rows]
    cells = (
        f"{rows[0].seed} to {rows[-1].seed}",
        f"{len(certified)} of {len(rows)}",
        f"{statistics.median(firsts):g}, {max(firsts)}",
        f"{statistics.median(margins):.2f}, {min(margins):.2f}",
        f"{statistics.median(seconds):.1f}, {max(seconds):.1f}",
        f"{statistics.median(cpu):.1f}, {max(cpu):.1f}",
    )
    return f"{head}\n|{'---|' * len(cells)}\n| {' | '.join(cells)} |"


def main(arguments: list[str]) -> int:
    """Print a line per seed and the table; 1 if a seed is not certified."""
    first, last = (int(argument) for argument in (*arguments, *("1", "100")[len(arguments) :]))
    rows = []
    for seed in range(first, last + 1):
        rows.append(run(seed))
        row = rows[-1]
        proven = "not proven" if row.margin is None else f"margin {row.margin:.2f}"
        print(
            f"seed {seed}: first certificate after {row.first} steps, {row.steps} in all, {proven}, {row.wall:.1f} s",
            flush=True,
        )
    print("\n" + table(rows))
    return int(any(row.margin is None for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
