"""The embedded server as a process of its own, for `benchmarks.fuzz`, and what hostile configs point at."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import hostile_configs
from benchmarks.well_formed import MODEL

_STOP_SECONDS = 25.0


class Server(NamedTuple):
    """A running server: its address, its process, the file of its output."""

    host: str
    port: int
    process: subprocess.Popen
    output: pathlib.Path


def plant(base_path: pathlib.Path) -> None:
    """What hostile configs point at: a pipe, and versions that are none."""
    os.mkfifo(base_path / hostile_configs.PIPE)
    for version, file in (("1", "saved_model.pb"), ("2", "nothing"), ("-3", "saved_model.pb")):
        folder = base_path / hostile_configs.BROKEN / version
        folder.mkdir(parents=True)
        os.mkfifo(folder / file)


@contextlib.contextmanager
def serving(base_path: pathlib.Path, *flags: str) -> Iterator[Server]:
    """`bitsum serve` of `base_path` as a process, with its output in a file; stopped, and seen to stop, afterwards."""
    ready, output = base_path.with_name("ready.json"), base_path.with_name("output.txt")
    command = [sys.executable, "-m", "pipeline", "serve", "--server=embedded", "--port=0", f"--model_base_path={base_path}"]
    command += [f"--ready_file={ready}", f"--model_name={MODEL}", "--grpc_max_threads=16", "--max_num_load_retries=0", *flags]
    with open(output, "wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise SystemExit(f"bitsum serve ended with exit code {process.returncode}: {output.read_text()}")
            time.sleep(0.05)
        told = json.loads(ready.read_text())
        yield Server(told["host"], told["port"], process, output)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise SystemExit("the server waited for calls whose clients are gone") from None
