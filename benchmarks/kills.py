"""What a run that is killed (SIGKILL) in a stage leaves behind, and that the next run completes.

python -m benchmarks.kills [STAGE...]     (all stages without arguments)
"""

import pathlib
import subprocess
import sys
import tempfile

from components import version_folder

# Each stage is killed this long after it began, in the middle of its work.
KILL_AFTER_SECONDS = 0.3

SMALL = (
    "data.long_lengths=[16, 100]", "data.long_examples=40", "data.train_examples=3000", "data.eval_examples=500",
    "infra.examples=60",
)

_DIES = """
import os, signal, sys, threading
from pipeline import config as configuration, home, local
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


def resume(root: pathlib.Path) -> subprocess.CompletedProcess:
    """`bitsum run` in the same folder."""
    words = [word for setting in (f"pipeline.root={root}", *SMALL) for word in ("--set", setting)]
    return subprocess.run([sys.executable, "-m", "pipeline", "run", *words], capture_output=True, text=True)


def leftovers(root: pathlib.Path) -> str:
    """The states of the executions that are not complete, and the versions that are served."""
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


def main(stages: list[str]) -> int:
    """Print a table, a row per stage; 1 if a run could not be completed after a kill."""
    from pipeline.local import STAGES

    failed = False
    print("| killed in | exit | left behind | next run |\n|---|---|---|---|")
    for stage in stages or STAGES.values():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder) / "var"
            code = kill(stage, root)
            left = leftovers(root)
            done = resume(root)
            failed |= done.returncode != 0
            said = f", {done.stderr.strip()}" if done.returncode else ""
            print(f"| {stage} | {code} | {left} | exit {done.returncode}{said} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
