"""Sends malformed requests to the embedded server in a process of its own: it must stay alive with constant memory and
give every answer a proper status.

python -m benchmarks.fuzz [COUNT] [--seed N] [--only INDEX] [--flags ...]

Valid requests are mixed in, and every bit of their answers is checked. A violation is an answer with status UNKNOWN, or
INTERNAL with a text; a text that names a Python exception; a wrong sum; a refused valid request; a traceback in the
output; growing memory; a server that ends. The request is printed in hex, and --only INDEX sends it alone. Exit code 1.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import random
import re
import sys
import tempfile
import time
from typing import Any, NamedTuple

import grpc

from benchmarks import hostile_configs
from benchmarks.fuzz_server import Server, plant, serving
from benchmarks.malformed import TIMEOUT, Case, Malformed
from benchmarks.well_formed import MODEL, PREDICT, RELOAD
from components import signatures
from serving import protos, tensors

COUNT = 100_000
IN_FLIGHT = 6
CHANNELS = 3
GOOD_EVERY = 25
# A server that leaks a kilobyte a request would grow by 50 MB over the second half of 100,000.
GROWTH_MB = 40.0
_BIGGEST_ANSWER = 64 * 2**20
_SLOWEST = 5
_AVAILABLE = 30
# A busy machine is not a violation; a server that hangs is.
_GOOD_SECONDS = 60.0
_PYTHON = re.compile(r"\b[A-Z]\w+(Error|Exception)\b|b'\\x|Exception calling application")
# Requests that TensorFlow Serving itself answers with UNKNOWN.
_PROPER = re.compile(r"\d+ model\(s\) did not become available")
_OUTPUT = re.compile(
    r"Traceback|Logging error|Exception in thread|Error calling|exception calling|[\x00-\x08\x0b-\x1f\x7f]"
)


class Violation(NamedTuple):
    """A violation and its request: index (None if not numbered), method and bytes."""

    what: str
    index: int | None = None
    method: str = ""
    data: bytes = b""

    def __str__(self) -> str:
        shown = self.data[:2048].hex() + ("..." if len(self.data) > 2048 else "")
        return f"VIOLATION {self.what}" + (f"\n  --only {self.index}: {self.method} {shown}" if self.method else "")


class Outcome(NamedTuple):
    """Statuses by kind of request, the violations, (share done, MB) of the server, and the slowest (seconds, index,
    kind) first."""

    statuses: dict[str, collections.Counter]
    violations: list[Violation]
    memory: list[tuple[float, float]]
    slowest: list[tuple[float, int, str]]
    seconds: float


def main(arguments: list[str]) -> int:
    """Run, print the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("count", nargs="?", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="INDEX", help="send this request alone, and print its answer")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="further flags of bitsum serve")
    args = parser.parse_args(arguments)
    from tests.support import certified_model

    with tempfile.TemporaryDirectory() as folder:
        base_path = pathlib.Path(folder, "model")
        certified_model.push(base_path)
        plant(base_path)
        with serving(base_path, *args.flags) as server:
            if args.only is not None:
                only(server, Malformed(args.seed, str(base_path)).case(args.only))
                return 0
            outcome = run(server, base_path, args.count, args.seed)
    print_outcome(outcome)
    if server.process.returncode:
        print(f"the server did not end properly: exit code {server.process.returncode}")
    return 1 if outcome.violations or server.process.returncode else 0


def run(server: Server, base_path: pathlib.Path, count: int, seed: int) -> Outcome:
    """Send `count` malformed requests; stops at the server's end."""
    fuzz = Fuzz(server, str(base_path), seed)
    start = time.monotonic()
    fuzz.sample(0.0)
    with contextlib.closing(fuzz):
        for index, case in Malformed(seed, str(base_path)).cases(count):
            fuzz.send(index, case)
            if index % GOOD_EVERY == 0:
                fuzz.good()
            if (index + 1) * 10 % count < 10:
                fuzz.sample((index + 1) / count)
                print(
                    f"  {(index + 1) / count:4.0%}  {time.monotonic() - start:6.1f} s  {fuzz.memory[-1][1]:7.1f} MB",
                    flush=True,
                )
            if fuzz.ended():
                break
        else:
            fuzz.drain()
            fuzz.good()
    fuzz.judge_process()
    return Outcome(fuzz.statuses, fuzz.violations, fuzz.memory, fuzz.slowest, time.monotonic() - start)


class Fuzz:
    """Several calls in flight, and their outcomes."""

    def __init__(self, server: Server, folder: str, seed: int):
        self._server = server
        options = [("grpc.max_receive_message_length", _BIGGEST_ANSWER), ("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.insecure_channel(server.target, options) for _ in range(CHANNELS)]
        self._flying: collections.deque[tuple[int, Case, Any, list[float]]] = collections.deque()
        self._draw = random.Random(f"{seed}/good")
        management = protos.load().management
        config = hostile_configs.right(MODEL, folder)
        self._restore = management.ReloadConfigRequest(config=config).SerializeToString()
        self.statuses: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.violations: list[Violation] = []
        self.memory: list[tuple[float, float]] = []
        self.slowest: list[tuple[float, int, str]] = []

    def close(self) -> None:
        """Close the channel."""
        for channel in self._channels:
            channel.close()

    def send(self, index: int, case: Case) -> None:
        """Send a case; it may be judged later."""
        if case.alone:
            self.drain()
        self._flying.append((index, case, *self._begin(index, case)))
        if case.alone and self.drain() == grpc.StatusCode.OK:
            self._undo()
        while len(self._flying) >= IN_FLIGHT:
            self._finish()

    def drain(self) -> grpc.StatusCode | None:
        """Wait for all calls; the status of the last one."""
        code = None
        while self._flying:
            code = self._finish()
        return code

    def good(self) -> None:
        """A sum that must be right, by one of two signatures."""
        a, b = (self._draw.getrandbits(self._draw.choice((1, 17, 64))) for _ in range(2))
        apis = protos.load()
        operands = {signatures.A: tensors.bits_tensor([a], 64), signatures.B: tensors.bits_tensor([b], 64)}
        spec = {"name": MODEL, "signature_name": signatures.ADD_BITS}
        data = apis.predict.PredictRequest(model_spec=spec, inputs=operands).SerializeToString()
        try:
            answer = self._channels[0].unary_unary(PREDICT)(data, timeout=_GOOD_SECONDS)
        except grpc.RpcError as error:
            self.statuses["good"][error.code().name] += 1
            self.violations.append(
                Violation(f"a valid request: {error.code().name}: {error.details()}", None, PREDICT, data)
            )
            return
        self.statuses["good"]["OK"] += 1
        total = tensors.integers(
            tensors.decode(apis.predict.PredictResponse.FromString(answer).outputs[signatures.SUM])
        )
        if total != [a + b]:
            self.violations.append(Violation(f"{a} + {b} is answered with {total}", None, PREDICT, data))

    def ended(self) -> bool:
        """The violation of a dead server, with the last request sent, if it is dead."""
        code = self._server.process.poll()
        if code is None:
            return False
        for index, case, _call, _ in self._flying:
            self.violations.append(
                Violation(f"the server ended with {code}; this request was in progress", index, case.method, case.data)
            )
        self.violations.append(Violation(f"the server ended with {code}"))
        return True

    def sample(self, share: float) -> None:
        """Measure the server's memory."""
        with contextlib.suppress(OSError):
            pages = int(pathlib.Path(f"/proc/{self._server.process.pid}/statm").read_text().split()[1])
            self.memory.append((share, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))

    def judge_process(self) -> None:
        """The server's memory and output."""
        half = next((size for share, size in self.memory if share >= 0.5), 0.0)
        if self.memory and self.memory[-1][1] > half + GROWTH_MB:
            self.violations.append(Violation(f"memory grew from {half:.0f} MB at 50 % to {self.memory[-1][1]:.0f} MB"))
        for line in self._server.output.read_bytes().decode(errors="replace").split("\n"):
            if _OUTPUT.search(line):
                self.violations.append(Violation(f"the server's output holds {line[:200]!r}"))

    def _begin(self, index: int, case: Case) -> tuple[Any, list[float]]:
        channel = self._channels[index % CHANNELS]
        start, ended = time.perf_counter(), []
        call = channel.unary_unary(case.method).future(case.data, timeout=case.timeout)
        call.add_done_callback(lambda _: ended.append(time.perf_counter() - start))
        return call, ended

    def _finish(self) -> grpc.StatusCode:
        index, case, call, ended = self._flying.popleft()
        code, text = call.code(), call.details() or ""
        while not ended:
            time.sleep(0.0001)
        self.slowest = sorted([*self.slowest, (ended[0], index, case.kind)], reverse=True)[:_SLOWEST]
        self.statuses[case.kind][code.name] += 1
        fault = judged(code, text, busy=case.timeout < TIMEOUT or case.method == PREDICT)
        if fault:
            self.violations.append(Violation(f"{case.kind}: {fault}", index, case.method, case.data))
        return code

    def _undo(self) -> None:
        """Restore the model after any reload."""
        end = time.monotonic() + TIMEOUT
        asked = protos.load().status.GetModelStatusRequest(model_spec={"name": MODEL}).SerializeToString()
        self._channels[0].unary_unary(RELOAD)(self._restore, timeout=TIMEOUT)
        while time.monotonic() < end:
            with contextlib.suppress(grpc.RpcError):
                answer = self._channels[0].unary_unary("/tensorflow.serving.ModelService/GetModelStatus")(
                    asked, timeout=TIMEOUT
                )
                response = protos.load().status.GetModelStatusResponse.FromString(answer)
                if any(item.state == _AVAILABLE for item in response.model_version_status):
                    return
            time.sleep(0.01)


def judged(code: grpc.StatusCode, text: str, busy: bool) -> str:
    """The fault of an answer, if any. `busy`: whether it may take longer than its deadline."""
    answer = f"{code.name}: {text[:300]}"
    if _PROPER.match(text):
        return ""
    if _PYTHON.search(text):
        return f"a Python exception as the answer, {answer}"
    if code == grpc.StatusCode.UNKNOWN or (code == grpc.StatusCode.INTERNAL and text):
        return answer
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or (
        code == grpc.StatusCode.DEADLINE_EXCEEDED and not busy
    ):
        return answer
    return ""


def only(server: Server, case: Case) -> None:
    """Send one case and print its outcome."""
    fuzz = Fuzz(server, "", 0)
    with contextlib.closing(fuzz):
        call, _ = fuzz._begin(0, case)
        code, text = call.code(), call.details()
    print(f"{case.kind} {case.method} {case.data[:4096].hex()}\n{code.name}: {text}\n{server.output.read_text()}")


def print_outcome(outcome: Outcome) -> None:
    """The table, memory, the slowest answer, the violations."""
    print(f"{'kind':<16}{'requests':>9}  statuses")
    for kind, statuses in sorted(outcome.statuses.items()):
        print(
            f"{kind:<16}{statuses.total():>9}  {', '.join(f'{name} {count}' for name, count in statuses.most_common())}"
        )
    total = sum(statuses.total() for kind, statuses in outcome.statuses.items() if kind != "good")
    print(f"{total} malformed requests in {outcome.seconds:.0f} s; memory of the server: ", end="")
    print(
        ", ".join(
            f"{size:.1f} MB at {share:.0%}" for share, size in outcome.memory if round(share, 1) in (0.0, 0.1, 0.5, 1.0)
        )
    )
    slowest = ", ".join(f"{seconds:.2f} s ({kind}, --only {index})" for seconds, index, kind in outcome.slowest)
    print(f"slowest answers: {slowest}")
    for violation in outcome.violations[:50]:
        print(violation)
    print(f"{len(outcome.violations)} violations")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
