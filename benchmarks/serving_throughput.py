"""Requests per second of a model server, as a fraction of a bare loop in one process with the same model.

python -m benchmarks.serving_throughput [--seconds S] [--rounds N] [--bits T]

The bare loop calls the loaded SavedModel without gRPC, which is the limit. Compared with it, in rounds because machines
are noisy: the embedded server, with and without batching, and tensorflow_model_server if available (on the PATH, or
BITSUM_MODEL_SERVER=/path). Clients are threads in a separate process that send one or 64 sums of 16 bits and wait for
the answer; they also use the processors. Medians over the rounds.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from components import signatures
from components.steps import model_server
from tests.support import certified_model

STREAMS = (1, 4, 16)
BATCHES = (1, 64)
_MODEL = "bitsum"
_START_SECONDS = 120.0
_THREADS = "--grpc_max_threads=64"
_SERVERS = {"embedded": ["--server=embedded"], "embedded, batching": ["--server=embedded", "--enable_batching"]}


def bare(version: pathlib.Path, batch: int, bits: int, seconds: float) -> float:
    """Calls per second of add_bits in a loop. Imports TensorFlow, so run it in a separate process."""
    import numpy as np

    from serving.runtime.loaded_model import LoadedModel

    model = LoadedModel(version)
    signature = model.signatures[signatures.ADD_BITS]
    draw = np.random.default_rng(1)
    feeds = {info.name: draw.integers(0, 2, (batch, bits)) for info in signature.inputs.values()}
    fetches = [signature.outputs[signatures.SUM].name]
    for _ in range(50):
        model.run(feeds, fetches)
    calls, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        model.run(feeds, fetches)
        calls += 1
    return calls / seconds


def clients(target: str, streams: int, batch: int, bits: int, seconds: float) -> dict[str, float]:
    """Requests per second, and p50 and p99 of their latency in ms, of closed loops; every sum is checked. Without
    TensorFlow.

    Raises:
        grpc.RpcError, AssertionError: a call failed, or a sum is wrong.
    """
    import random

    import grpc

    from serving import protos, tensors

    draw = random.Random(1)
    pairs = [(draw.getrandbits(bits), draw.getrandbits(bits)) for _ in range(batch)]
    request = protos.load().predict.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = _MODEL, signatures.ADD_BITS
    for name, numbers in zip((signatures.A, signatures.B), zip(*pairs, strict=True), strict=True):
        request.inputs[name].CopyFrom(tensors.bits_tensor(numbers, bits))
    data, latencies, stop = request.SerializeToString(), [], threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            answer = protos.load().predict.PredictResponse.FromString(predict(data))
            assert tensors.integers(tensors.decode(answer.outputs[signatures.SUM])) == [a + b for a, b in pairs]
            while not stop.is_set():
                start = time.perf_counter()
                predict(data)
                latencies.append(time.perf_counter() - start)

    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        asking = [pool.submit(ask) for _ in range(streams)]
        time.sleep(0.3)
        latencies.clear()
        start = time.perf_counter()
        time.sleep(seconds)
        count, taken = len(latencies), time.perf_counter() - start
        stop.set()
        for each in asking:
            each.result()
    ordered = sorted(latencies)
    return {
        "rate": count / taken,
        "p50": 1000 * ordered[len(ordered) // 2],
        "p99": 1000 * ordered[len(ordered) * 99 // 100],
    }


class _Failed(Exception):
    """A measurement failed; the text says which, and why."""


def _in_process(*words: str) -> dict:
    """The JSON of this module run in a separate process. Raises: _Failed."""
    command = [sys.executable, "-m", "benchmarks.serving_throughput", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise _Failed(f"{' '.join(words)}: exit {done.returncode}: {reason}")
    return json.loads(done.stdout)


def measure(bits: int, rounds: int, seconds: float) -> int:
    """Print the table; 1 if a measurement failed, which the table then lacks."""
    servers = dict(_SERVERS)
    real = os.environ.get("BITSUM_MODEL_SERVER") or shutil.which("tensorflow_model_server")
    if real:
        os.environ["PATH"] = f"{pathlib.Path(real).parent}{os.pathsep}{os.environ['PATH']}"
        servers["tensorflow_model_server"] = ["--server=tensorflow_model_server"]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        (version,) = certified_model.push(folder / _MODEL, 1)
        targets = {}
        for kind, flags in servers.items():
            command = [sys.executable, "-m", "pipeline", "serve", _THREADS, *flags]
            serving = model_server.serving(command, _MODEL, folder / _MODEL, folder / f"{kind}.log", _START_SECONDS)
            targets[kind] = stack.enter_context(serving).target
        limits: dict[int, list[float]] = {batch: [] for batch in BATCHES}
        found: dict[tuple[str, int, int], list[dict]] = {}
        failed = False
        for _ in range(rounds):
            for batch in BATCHES:
                model = str(folder / _MODEL / str(version))
                limit = _in_process("bare", model, str(batch), str(bits), str(seconds))["rate"]
                limits[batch].append(limit)
                for streams in STREAMS:
                    for kind, target in targets.items():
                        runs = found.setdefault((kind, batch, streams), [])
                        try:
                            run = _in_process("clients", target, str(streams), str(batch), str(bits), str(seconds))
                        except _Failed as error:
                            failed = True
                            print(f"{kind}: {error}", flush=True)
                        else:
                            # Each round is compared with its own bare loop, under the same load of the machine.
                            runs.append({**run, "ratio": run["rate"] / limit})
    _print(bits, limits, found)
    if not real:
        print("tensorflow_model_server: not run, not found")
    return int(failed)


def _print(bits: int, limits: dict[int, list[float]], found: dict[tuple[str, int, int], list[dict]]) -> None:
    print(f"sums of {bits} bits; the bare loop: ", end="")
    print(", ".join(f"{statistics.median(rates):.0f} calls/s at batch {batch}" for batch, rates in limits.items()))
    print(
        "| server | batch | streams | requests/s | ratio to the bare loop | p50 ms | "
        "p99 ms |\n|---|---|---|---|---|---|---|"
    )
    for (kind, batch, streams), runs in found.items():
        if not runs:
            print(f"| {kind} | {batch} | {streams} | failed | | | |")
            continue
        rate, ratio, p50, p99 = (statistics.median(run[key] for run in runs) for key in ("rate", "ratio", "p50", "p99"))
        print(f"| {kind} | {batch} | {streams} | {rate:.0f} | {ratio:.2f} | {p50:.2f} | {p99:.2f} |")


def main(arguments: list[str]) -> int:
    """Measure, or run one part in this process."""
    match arguments:
        case ["bare", version, batch, bits, seconds]:
            print(json.dumps({"rate": bare(pathlib.Path(version), int(batch), int(bits), float(seconds))}))
            return 0
        case ["clients", target, streams, batch, bits, seconds]:
            print(json.dumps(clients(target, int(streams), int(batch), int(bits), float(seconds))))
            return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds per measurement (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of measurements (default %(default)s)")
    parser.add_argument("--bits", type=int, default=16, help="length of the numbers (default %(default)s)")
    args = parser.parse_args(arguments)
    return measure(args.bits, args.rounds, args.seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
