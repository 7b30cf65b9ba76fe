"""Section 12_classify_regress: Classify, Regress and MultiInference on tf.Examples."""

import pathlib
import subprocess
import sys
from collections.abc import Iterator

from tests.conformance import recording, replay, servers
from tests.conformance.outcomes import Seen

SECTION = "12_classify_regress"
_MODULE = "tests.conformance.make_half_plus_two"


def run(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """Everything of the section, on a model with the same signatures."""
    base = folder / "half_plus_two"
    subprocess.run([sys.executable, "-m", _MODULE, base], check=True, capture_output=True, timeout=300, cwd=servers.ROOT)
    with servers.running(program, folder, "--model_name=h", f"--model_base_path={base}") as server:
        yield from replay.replay(replay.Wire.of(server, folder), recording.load()[SECTION].values())
