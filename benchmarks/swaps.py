"""Real traffic during version swaps: the number of failed requests and wrong sums.

python -m benchmarks.swaps [SWAPS] [--clients N]

Clients that follow the label `stable` add short and streamed numbers without a pause, while `bitsum rollout` promotes
one version after another, with a `bitsum rollback` every tenth time. Every sum is compared with Python's, and every
answer's version must have been stable when the request was sent or answered.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

from components.savedmodel import version_folder
from components.steps import model_server
from serving.client import AdderClient, ServingError
from tests.support import certified_model

SWAPS = 100
CLIENTS = 4
_VERSIONS = 3
_START_SECONDS = 120.0
_STREAMED_BITS = 200_000
_BITSUM = [sys.executable, "-m", "pipeline"]


class Traffic:
    """Clients in separate threads that send requests until they are stopped."""

    def __init__(self, target: str, model_name: str, clients: int, seed: int):
        self.asked = collections.Counter()
        self.failures: list[str] = []
        self.slowest = 0.0
        self._stop = threading.Event()
        self._target, self._model_name = target, model_name
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(f"{seed}/{number}"), number))
            for number in range(clients)
        ]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, draw: random.Random, number: int) -> None:
        # No retries, so that failed requests are counted.
        with AdderClient(self._target, self._model_name, attempts=1, deadline=60.0) as client:
            while not self._stop.is_set():
                bits = _STREAMED_BITS if number == 0 else draw.choice((1, 8, 64, 1000))
                a, b = draw.getrandbits(bits), draw.getrandbits(bits)
                start = time.monotonic()
                try:
                    total = client.add(a, b)
                except ServingError as error:
                    self.failures.append(f"{bits} bits: {error}")
                    continue
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.asked["streamed" if number == 0 else "short"] += 1
                if total != a + b:
                    self.failures.append(f"{a:#x} + {b:#x} = {total:#x}")


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """HOST:PORT of a server with the lowest of three versions stable, and its model config file."""
    base, config = folder / "bitsum", folder / "models.config"
    versions = certified_model.push(base, 1)
    command = [*_BITSUM, "serve", f"--model_config_file={config}", "--file_system_poll_wait_seconds=0.2"]
    with model_server.serving(command, base.name, base, folder / "server.log", _START_SECONDS) as server:
        certified_model.push(base, _VERSIONS - len(versions))
        yield server.target, config


def swap(target: str, model_name: str, config: pathlib.Path, version: int | None) -> subprocess.CompletedProcess:
    """Roll out `version`, or roll back if it is None."""
    options = ["--server", target, "--model_name", model_name, "--config_file", str(config)]
    words = (
        ["rollback", *options]
        if version is None
        else ["rollout", str(version), *options, "--count=10", "--max_latency_ratio=100"]
    )
    return subprocess.run(
        [*_BITSUM, *words], capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    )


def measure(target: str, config: pathlib.Path, base: pathlib.Path, swaps: int, clients: int) -> int:
    """Swap the versions in `base`, a folder named after the model, and print the table; 1 if anything failed."""
    versions = version_folder.versions(base)
    seconds, refused = [], []
    with Traffic(target, base.name, clients, seed=1) as traffic:
        for number in range(swaps):
            back = number % 10 == 9
            start = time.monotonic()
            done = swap(target, base.name, config, None if back else versions[(number + 1) % len(versions)])
            seconds.append(time.monotonic() - start)
            if done.returncode:
                refused.append(f"swap {number + 1}: exit {done.returncode}, {done.stderr.strip()}")
    asked = traffic.asked
    print(
        "| swaps | refused | requests | of them streamed | failed or wrong | "
        "slowest request |\n|---|---|---|---|---|---|"
    )
    print(
        f"| {swaps} | {len(refused)} | {asked.total()} | {asked['streamed']} | "
        f"{len(traffic.failures)} | {traffic.slowest:.2f} s |"
    )
    for line in [*refused, *traffic.failures][:10]:
        print(line)
    return int(bool(refused or traffic.failures))


def main(arguments: list[str]) -> int:
    """Swap as often as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("swaps", type=int, nargs="?", default=SWAPS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, served(pathlib.Path(folder)) as (target, config):
        return measure(target, config, pathlib.Path(folder) / "bitsum", args.swaps, args.clients)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
