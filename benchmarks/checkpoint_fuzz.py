"""Reads random checkpoints with valid checksums with our reader and TensorFlow's: both read the same tensors, or ours
refuses.

python -m benchmarks.checkpoint_fuzz [COUNT] [--seed N] [--only INDEX]

Each of COUNT tables is a certified model's after one to three tamperings (`benchmarks.forged_checkpoints`). A violation
is a checkpoint of which our reader accepts other tensors than TensorFlow, or that TensorFlow does not load; --only
INDEX reproduces it. `forged` counts refused checkpoints that TensorFlow loads completely. Exit code 1 for a violation.
"""

import argparse
import collections
import pathlib
import random
import sys
import tempfile
from typing import NamedTuple

from benchmarks.forged_checkpoints import TAMPERINGS, Checkpoint
from components.errors import BitsumError
from components.proof.weights import NAMES
from components.savedmodel import checkpoint as saved_weights
from components.savedmodel import loaded_weights
from components.savedmodel.checkpoint import checkpoint_key
from tests.support import certified_model

COUNT = 20_000

EQUAL = "equal"
REFUSED = "refused"
# Refused, and TensorFlow loads all of its tensors.
FORGED = "forged"


class Outcome(NamedTuple):
    """The number of tables per outcome and tampering, and the violations, one line each."""

    counts: dict[str, collections.Counter]
    violations: list[str]

    def total(self, outcome: str) -> int:
        """Tables with an outcome; a table counts for each of its tamperings, and once for "all"."""
        return self.counts["all"][outcome]


def main(arguments: list[str]) -> int:
    """Run, print the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("count", nargs="?", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="INDEX", help="test only this table")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bitsum-fuzz-") as folder:
        model = pathlib.Path(folder) / "model"
        certified_model.export(model)
        indices = range(args.count) if args.only is None else [args.only]
        outcome = run(model, pathlib.Path(folder), indices, args.seed)
    print(f"{'tampering':22} {'tables':>8} {'equal':>8} {'refused':>8} {'forged':>8}")
    for name, counts in sorted(outcome.counts.items(), key=lambda item: (item[0] == "all", item[0])):
        print(f"{name:22} {counts[EQUAL] + counts[REFUSED]:8} {counts[EQUAL]:8} {counts[REFUSED]:8} {counts[FORGED]:8}")
    for violation in outcome.violations:
        print(f"VIOLATION {violation}")
    return 1 if outcome.violations else 0


def run(model: pathlib.Path, folder: pathlib.Path, indices: range | list[int], seed: int) -> Outcome:
    """Tampers with the table of `model` once per index of `indices`, and writes the results below `folder`."""
    counts, violations = collections.defaultdict(collections.Counter), []
    for index in indices:
        draw = random.Random(f"{seed} {index}")
        checkpoint = Checkpoint.read(model)
        tamperings = sorted(draw.sample(TAMPERINGS, draw.choice([1, 1, 2, 3])), key=TAMPERINGS.index)
        for tamper in tamperings:
            tamper(checkpoint, draw)
        checkpoint.write(folder)
        names = ["all", *(tamper.__name__ for tamper in tamperings)]
        try:
            saved_weights.read(folder)
        except BitsumError:
            is_loaded = loads(folder)
            for name in names:
                counts[name].update([REFUSED, *[FORGED] * is_loaded])
            continue
        for name in names:
            counts[name][EQUAL] += 1
        violations += [f"table {index} ({', '.join(names[1:])}): {line}" for line in loaded_weights.differences(folder)]
    return Outcome(counts, violations)


def loads(folder: pathlib.Path) -> bool:
    """Whether TensorFlow loads all tensors of a cell from the checkpoint in `folder`, as a graph restores them.

    tf.train.load_checkpoint would end the process if an entry does not parse.
    """
    import tensorflow as tf

    prefix, keys = str(folder / "variables" / "variables"), [checkpoint_key(name) for name in NAMES]
    try:
        tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=keys, shape_and_slices=[""] * len(keys), dtypes=[tf.float32] * len(keys)
        )
    except tf.errors.OpError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
