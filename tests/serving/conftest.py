"""Real models, and real servers as processes of their own."""

import contextlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.support import adder_model
from tests.support.waiting import wait_for

BITSUM = (sys.executable, "-m", "pipeline")


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folders of two SavedModels: `right`, and `broken`, which adds wrongly. Copy them to serve them."""
    folder = tmp_path_factory.mktemp("models")
    for name, broken in (("right", False), ("broken", True)):
        adder_model.save(folder / name, broken)
    return folder


@contextlib.contextmanager
def serving(base_path, *flags, env=None):
    """`bitsum serve` of `base_path` as a process that is ready: .target, .ready, .process, and .wait() for exit code
    and output."""
    ready_file = pathlib.Path(f"{base_path}.ready.json")
    command = [
        *BITSUM,
        "serve",
        "--port=0",
        f"--model_base_path={base_path}",
        "--file_system_poll_wait_seconds=0.1",
        *flags,
    ]
    process = subprocess.Popen(
        [*command, f"--ready_file={ready_file}"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: ready_file.exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        ready = SimpleNamespace(**json.loads(ready_file.read_text()))
        yield SimpleNamespace(target=f"{ready.host}:{ready.port}", ready=ready, ready_file=ready_file, process=process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def put(model, base_path, version):
    """Push `model` as `version`: copied beside, then renamed."""
    beside = base_path / f".{version}"
    shutil.copytree(model, beside)
    beside.rename(base_path / str(version))


@pytest.fixture
def base_path(models, tmp_path):
    """A folder with version 1 of the right model."""
    base_path = tmp_path / "served"
    base_path.mkdir()
    put(models / "right", base_path, 1)
    return base_path


def bitsum(*arguments, timeout=60):
    """Run a command; exit code, output, errors."""
    done = subprocess.run([*BITSUM, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="session")
def server(models, tmp_path_factory):
    """The embedded server with version 1 of the right model."""
    base_path = tmp_path_factory.mktemp("served")
    put(models / "right", base_path, 1)
    with serving(base_path, "--server=embedded") as running:
        yield running
