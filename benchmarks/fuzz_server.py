"""The embedded server as a separate process for `benchmarks.fuzz`, and the targets of hostile configs."""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import hostile_configs
from benchmarks.well_formed import MODEL
from components.steps import model_server

_START_SECONDS = 120.0


class Server(NamedTuple):
    """A running server: HOST:PORT, its process, the file of its output."""

    target: str
    process: subprocess.Popen
    output: pathlib.Path


def plant(base_path: pathlib.Path) -> None:
    """The targets of hostile configs: a pipe, and invalid versions."""
    os.mkfifo(base_path / hostile_configs.PIPE)
    for version, file in (("1", "saved_model.pb"), ("2", "nothing"), ("-3", "saved_model.pb")):
        folder = base_path / hostile_configs.BROKEN / version
        folder.mkdir(parents=True)
        os.mkfifo(folder / file)


@contextlib.contextmanager
def serving(base_path: pathlib.Path, *flags: str) -> Iterator[Server]:
    """`bitsum serve` of `base_path` as a process; its exit code is not 0 if it had to be killed."""
    output = base_path.with_name("output.txt")
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "serve",
        "--server=embedded",
        "--grpc_max_threads=16",
        "--max_num_load_retries=0",
        *flags,
    ]
    with model_server.serving(command, MODEL, base_path, output, _START_SECONDS) as running:
        yield Server(running.target, running.process, output)
