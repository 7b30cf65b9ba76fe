"""Kills runs (SIGKILL) in each stage and at random moments: prints their remains, and whether the next run completes.

python -m benchmarks.kills [STAGE...]            (default: all stages, each in its own folder)
python -m benchmarks.kills --random [COUNT]      (60 kills without COUNT, all in one folder)
"""

import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from components.savedmodel import version_folder

# Each stage is killed this long after its start, in the middle of its work.
KILL_AFTER_SECONDS = 0.3
# Kills at random moments fall within the duration of the last run of the kind; before the first one, within this.
EXPECTED_SECONDS = {"train": 60.0, "data": 60.0, "infra": 40.0, "nothing new": 20.0}
KILLS = 60

# As few bits, records and requests as still exercise every step; the model is trained in full, or it would be refused.
SMALL = (
    "data.long_lengths=[16, 100]",
    "data.long_examples=40",
    "data.train_examples=3000",
    "data.eval_examples=500",
    "infra.examples=60",
)

_DIES = """
import os, signal, sys, threading
from pipeline import config as configuration, workspace as home; from pipeline.runner import local
config = configuration.load(None, sys.argv[3:])
home.prepare(config.root)
def begin(stage):
    if stage == sys.argv[1]:
        threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGKILL)).start()
local.run(config, "killed", begin, lambda note: None)
"""


def kill(stage: str, root: pathlib.Path) -> int:
    """Run the pipeline in `root` and kill it in `stage`; the exit code of the process (-9 when it was killed)."""
    settings = [f"pipeline.root={root}", *SMALL]
    command = [sys.executable, "-c", _DIES, stage, str(KILL_AFTER_SECONDS), *settings]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def command(root: pathlib.Path, *settings: str) -> list[str]:
    """`bitsum run` in the folder `root`."""
    words = [word for setting in (f"pipeline.root={root}", *SMALL, *settings) for word in ("--set", setting)]
    return [sys.executable, "-m", "pipeline", "run", *words]


def resume(root: pathlib.Path, *settings: str) -> subprocess.CompletedProcess:
    """The outcome of `bitsum run` in the folder of a killed run."""
    return subprocess.run(command(root, *settings), capture_output=True, text=True)


def leftovers(root: pathlib.Path) -> str:
    """The states of incomplete executions, and the served versions."""
    from ml_metadata import metadata_store
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(root / "metadata.sqlite")
    store = metadata_store.MetadataStore(connection)
    types = {kind.id: kind.name.rpartition(".")[2] for kind in store.get_execution_types()}
    ended = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED)
    states = [
        f"{types[execution.type_id]} {mlmd.Execution.State.Name(execution.last_known_state)}"
        for execution in store.get_executions()
        if execution.last_known_state not in ended
    ]
    served = version_folder.versions(root / "serving" / "bitsum")
    return f"{', '.join(states) or 'nothing open'}; {len(served)} versions"


def kill_after(seconds: float, root: pathlib.Path, *settings: str) -> str | None:
    """Kill a run after `seconds`; its last line, None if it had already ended.

    Raises:
        RuntimeError: it failed on its own.
    """
    with subprocess.Popen(
        command(root, *settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
            if process.returncode == 0:
                return None
            raise RuntimeError(f"a run failed before it was killed: {output}")
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    return (output.strip().splitlines() or ["nothing"])[-1].strip()


def knobs() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Endlessly, the first step of a run that is not in the cache (training, data or infra validation), and the run's
    knobs.

    A run without changes follows each, with all steps from the cache: it has the most writes to the store per second.
    """
    count = 0
    while True:
        for changed, work in enumerate(("train", "data", "infra")):
            seed, examples, requests = (count + (changed >= index) for index in range(3))
            # The margins of two seeds are not compared here.
            chosen = (
                f"train.seed={seed}",
                f"data.long_examples={40 + examples}",
                f"infra.examples={60 + requests}",
                "proof.min_margin_ratio=0",
            )
            yield work, chosen
            yield "nothing new", chosen
        count += 1


def at_random_moments(arguments: list[str]) -> int:
    """Print a table, a row per kill; 1 unless the run after each succeeds, and nothing stays RUNNING."""
    wanted = int(arguments[0]) if arguments else KILLS
    generator, runs, seconds = random.Random(1), knobs(), dict(EXPECTED_SECONDS)
    succeeded = journals = 0
    print("| kill | new | after | last line | hot journal | next run |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "var"
        for number in range(1, wanted + 1):
            last_line = None
            while last_line is None:
                work, chosen = next(runs)
                moment, began = generator.uniform(0.0, seconds[work]), time.monotonic()
                last_line = kill_after(moment, root, *chosen)
                if last_line is None:
                    seconds[work] = time.monotonic() - began
            # Opening the store repairs it, so it is inspected from outside.
            journal = root / "metadata.sqlite-journal"
            is_hot = journal.exists() and journal.read_bytes()[:1] not in (b"", b"\0")
            began = time.monotonic()
            done = resume(root, *chosen)
            seconds[work] = max(moment, time.monotonic() - began)
            succeeded += done.returncode == 0
            journals += is_hot
            ended = f"exit {done.returncode}"
            if done.returncode:
                ended += f", {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}"
            print(
                f"| {number} | {work} | {moment:.1f} s | {last_line} | {'yes' if is_hot else 'no'} | {ended} |",
                flush=True,
            )
        left = leftovers(root)
    print(
        f"\n{wanted} kills, {journals} of them left a hot journal; the next run succeeded "
        f"{succeeded} times; left at the end: {left}"
    )
    return int(succeeded < wanted or "RUNNING" in left)


def main(arguments: list[str]) -> int:
    """Print a table, a row per kill; 1 if a run could not be completed after one."""
    return at_random_moments(arguments[1:]) if arguments[:1] == ["--random"] else in_stages(arguments)


def in_stages(stages: list[str]) -> int:
    """Kill a run in each of `stages`, of all if there are none; 1 if a run could not be completed after one."""
    from pipeline.nodes import STAGES

    failed = False
    print("| killed in | exit | left behind | next run |\n|---|---|---|---|")
    for stage in stages or STAGES.values():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder) / "var"
            code = kill(stage, root)
            left = leftovers(root)
            done = resume(root)
            failed |= done.returncode != 0
            error = f", {done.stderr.strip()}" if done.returncode else ""
            print(f"| {stage} | {code} | {left} | exit {done.returncode}{error} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
