"""Exact match by length for several seeds, each a complete run of the pipeline with its own data and training.

python -m benchmarks.seeds [SEED...]     (default: 1 to 5)
"""

import pathlib
import re
import subprocess
import sys
import tempfile

from pipeline.records import evaluation


def main(seeds: list[str]) -> int:
    """Print the table and the wall seconds of each run's stages; 1 if a run did not end with right answers."""
    rows, failed = {}, False
    for seed in seeds or map(str, range(1, 6)):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder) / "var"
            settings = [f"pipeline.root={root}", f"data.seed={seed}", f"train.seed={seed}"]
            words = [word for setting in settings for word in ("--set", setting)]
            done = subprocess.run([sys.executable, "-m", "pipeline", "run", *words], capture_output=True, text=True)
            if done.returncode:
                failed = True
                print(f"seed {seed}: exit {done.returncode}: {done.stderr.strip()}", flush=True)
            # A refused model has an evaluation too.
            for folder_of_metrics in (root / "artifacts" / "Evaluator" / "evaluation").glob("*"):
                rows[seed] = evaluation.exact_match_by_length(str(folder_of_metrics))
            seconds = re.findall(r"^  (\S[\w -]*?) +([\d.]+) s", done.stdout, re.MULTILINE)
            print(f"seed {seed}: " + ", ".join(f"{stage} {time} s" for stage, time in seconds), flush=True)
    lengths = sorted(next(iter(rows.values()), {}))
    print("\n| seed | " + " | ".join(map(str, lengths)) + " |\n|" + "---|" * (len(lengths) + 1))
    for seed, row in rows.items():
        print(f"| {seed} | " + " | ".join(f"{row[length]:.4g}" for length in lengths) + " |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
