"""Long numbers through a served model: bits per second, and whether memory stays flat.

python -m benchmarks.streaming [--model FOLDER] [--bits 1000000 10000000] [--stream_bits 100000000]

FOLDER holds one version (saved_model.pb etc.) of a model that adds and has the signature add_packed; the default is the
model of tests.support.certified_model. The model is first called in a separate process, the bare call that is the basis
of comparison, and then served by `bitsum serve`. Every sum is compared with Python's own. Times are medians and depend
on the other load of the machine.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from components import signatures
from components.steps import model_server
from serving.client import AdderClient
from serving.client.chunking import PACKED
from serving.client.protocol import Call
from tests.support import certified_model

REPEATS = 9
CALL_BYTES = PACKED.max_bytes
PIECE_BYTES = 2**16
SAMPLE_SECONDS = 0.5
_MODEL = "bitsum"
_START_SECONDS = 120.0


def main(arguments: list[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--bits", type=int, nargs="*", default=[10**6, 10**7])
    parser.add_argument("--stream_bits", type=int, default=0)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.bare:
        print(json.dumps(bare_call(args.model)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or pathlib.Path(folder, "model")
        # In a separate process: TensorFlow would count towards the client's memory.
        command = [sys.executable, "-m", "benchmarks.streaming", "--model", model, "--bare"]
        bare = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        with served(model) as (target, pid):
            for bits in args.bits:
                numbers(target, bits, bare)
            if args.stream_bits:
                flat(target, pid, args.stream_bits, bare)


def bare_call(model: pathlib.Path) -> float:
    """Seconds of a call without a server, for CALL_BYTES of each operand; creates the model if it does not exist."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    if not model.exists():
        certified_model.export(model)
    loaded = tf.saved_model.load(str(model))
    draw = random.Random(1)
    operands = {name: tf.constant([draw.randbytes(CALL_BYTES)]) for name in (signatures.A, signatures.B)}
    add_packed = loaded.signatures[signatures.ADD_PACKED]
    state = tf.zeros([1, add_packed.structured_input_signature[1][signatures.STATE].shape[1]])
    return median(lambda: add_packed(**operands, state=state)[signatures.SUM].numpy())


def numbers(target: str, bits: int, bare: float) -> None:
    """AdderClient.add for two integers of `bits` bits, by a new client and by one that has measured its chunk size."""
    draw = random.Random(bits)
    a, b = draw.getrandbits(bits), draw.getrandbits(bits)
    calls: list[Call] = []
    with AdderClient(target, observe=lambda call, answer: calls.append(call)) as client:
        for which in ("new client", "again"):
            calls.clear()
            start = time.perf_counter()
            right = client.add(a, b) == a + b
            seconds = time.perf_counter() - start
            ratio = seconds / (bare * bits / (8 * CALL_BYTES))
            print(
                f"add, {bits:,} bits, {which}: {seconds:.2f} s, {bits / seconds:,.0f} bits/s, {len(calls)} calls, "
                f"{ratio:.2f} times the bare call; {'right' if right else 'WRONG'}",
                flush=True,
            )


def flat(target: str, server: int, bits: int, bare: float) -> None:
    """AdderClient.add_stream for two numbers of `bits` bits that are never whole in memory, and both processes'
    memory."""
    size, written, right = bits // 8, 0, True
    memory: list[tuple[float, float, float]] = []
    truth = total(size)
    expected = b""
    with AdderClient(target) as client:
        start = sampled = time.perf_counter()
        for piece in client.add_stream(operand(3, size), operand(4, size)):
            written += len(piece)
            while len(expected) < len(piece) and (more := next(truth, b"")):
                expected += more
            right &= expected[: len(piece)] == piece
            expected = expected[len(piece) :]
            if time.perf_counter() - sampled > SAMPLE_SECONDS:
                sampled = time.perf_counter()
                memory.append((8 * written / bits, resident(os.getpid()), resident(server)))
        seconds = time.perf_counter() - start
    right &= written == size + 1
    ratio = seconds / (bare * bits / (8 * CALL_BYTES))
    print(
        f"stream, {bits:,} bits: {seconds:.1f} s, {bits / seconds:,.0f} bits/s, {ratio:.2f} times the bare call; "
        f"{'right' if right else 'WRONG'}\n  written     client MB   server MB"
    )
    for share, client_mb, server_mb in memory[:: max(1, len(memory) // 10)]:
        print(f"  {share:6.1%}    {client_mb:9.1f}   {server_mb:9.1f}")


def total(size: int) -> Iterator[bytes]:
    """The sum of both operands, by Python, in pieces."""
    carry = 0
    for a, b in zip(operand(3, size), operand(4, size), strict=True):
        number = int.from_bytes(a, "little") + int.from_bytes(b, "little") + carry
        carry = number >> 8 * len(a)
        yield (number & (256 ** len(a) - 1)).to_bytes(len(a), "little")
    yield bytes([carry])


def operand(seed: int, size: int) -> Iterator[bytes]:
    """Random bytes in pieces."""
    draw = random.Random(seed)
    for start in range(0, size, PIECE_BYTES):
        yield draw.randbytes(min(PIECE_BYTES, size - start))


def resident(pid: int) -> float:
    """Resident memory in MB."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def median(work: Callable[[], object]) -> float:
    """Seconds of `work`, after a warmup call."""
    work()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@contextlib.contextmanager
def served(model: pathlib.Path) -> Iterator[tuple[str, int]]:
    """HOST:PORT and process of a server of `model`."""
    with tempfile.TemporaryDirectory() as folder:
        base_path = pathlib.Path(folder, "versions")
        base_path.mkdir()
        (base_path / "1").symlink_to(model.absolute())
        command = [sys.executable, "-m", "pipeline", "serve", "--server=embedded"]
        with model_server.serving(
            command, _MODEL, base_path, pathlib.Path(folder, "server.log"), _START_SECONDS
        ) as server:
            yield server.target, server.process.pid


if __name__ == "__main__":
    main(sys.argv[1:])
