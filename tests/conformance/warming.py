"""Sections 7_warmup, 7b_warmup_same_request and 8_while_loading: warmup files, and calls during a slow warmup."""

import concurrent.futures
import json
import pathlib
import random
import re
import time
from collections.abc import Callable, Iterator

from tests.conformance import models, recording, replay, servers, wire
from tests.conformance.outcomes import Seen
from tests.conformance.recording import Probe
from tests.conformance.watching import Watched

WARMUP, SAME_REQUEST, LOADING = "7_warmup", "7b_warmup_same_request", "8_while_loading"
# Long enough for the calls during the load, even on a busy machine.
_LOADING_SECONDS = 4.0
# The limit between two answers that come one directly after the other.
_AT_ONCE_SECONDS = 1.0
_MAX_RECORDS = 1000


def _bad_signature() -> bytes:
    request = wire.spec_request(wire.PREDICT, "m")
    request.model_spec.signature_name = "nope"
    return request.SerializeToString()


def _only_a() -> bytes:
    request = wire.request_type(wire.PREDICT).FromString(models.adding())
    del request.inputs["b"]
    return request.SerializeToString()


def _records(*requests: bytes) -> Callable[[pathlib.Path], None]:
    return lambda version: models.write_warmup(version, map(models.log_of, requests)) and None


def _raw(*records: bytes) -> Callable[[pathlib.Path], None]:
    return lambda version: models.write_warmup(version, records) and None


def _content(content: bytes) -> Callable[[pathlib.Path], None]:
    return lambda version: models.write_warmup(version, []).write_bytes(content) and None


def _truncated(version: pathlib.Path) -> None:
    path = models.write_warmup(version, [models.log_of(models.adding())] * 3)
    path.write_bytes(path.read_bytes()[:-7])


_WARMUPS: dict[str, Callable[[pathlib.Path], None]] = {
    "warmup_none": lambda version: None,
    "warmup_ok": _records(*[models.adding()] * 3),
    "warmup_other_name": _records(models.adding("other", version=1)),
    "warmup_bad_signature": _records(_bad_signature()),
    "warmup_missing_input": _records(_only_a()),
    "warmup_runtime_error": _records(models.adding(a=((1, 2),), b=((1, 2, 3),))),
    "warmup_garbage_file": _content(random.Random(0).randbytes(200)),
    "warmup_truncated": _truncated,
    "warmup_bad_proto": _raw(b"\xff\xff\xff"),
    "warmup_empty_log": _raw(b""),
    "warmup_empty_file": _content(b""),
    "warmup_1001": _records(*[models.adding()] * (_MAX_RECORDS + 1)),
}
# Probes that need their own flags, and so their own server.
_WITH_FLAGS: dict[str, tuple[str, Callable[[pathlib.Path], None]]] = {
    "warmup_off": ("--enable_model_warmup=false", _records(_bad_signature())),
    "warmup_iterations": ("--num_request_iterations_for_warmup=5", _records(models.looping(20_000))),
}


def warmups(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """Each kind of warmup file in version 2 of a model of its own, all on one server, with --max_num_load_retries=0."""
    bases = {name: folder / name for name in _WARMUPS}
    for base in bases.values():
        models.put(made, 1, base)
    config = servers.config_file(folder, *(servers.entry(name, base) for name, base in bases.items()))
    with servers.running(program, folder, config, "--max_num_load_retries=0") as server:
        for name, base in bases.items():
            with models.appearing(made, 2, base) as version:
                _WARMUPS[name](version)
        for name, base in bases.items():
            yield from _warmed(server, name, base)


def with_flags(program: servers.Program, made: pathlib.Path, folder: pathlib.Path, name: str) -> Iterator[Seen]:
    """One of _WITH_FLAGS, on a server with its flag."""
    flag, furnish = _WITH_FLAGS[name]
    models.put(made, 1, folder / name)
    with servers.running(program, folder, f"--model_name={name}", f"--model_base_path={folder / name}", flag) as server:
        with models.appearing(made, 2, folder / name) as version:
            furnish(version)
        yield from _warmed(server, name, folder / name)


def _warmed(server: servers.Server, name: str, base: pathlib.Path) -> Iterator[Seen]:
    model = Watched(server, name, base, f"/models/fs_DF/{name}")
    for section in (WARMUP, SAME_REQUEST):
        if probe := recording.load()[section].get(name):
            yield Seen(
                section, name, model.ends_as(_with_offset(probe, base)).difference or _served(server, name, probe)
            )


def _with_offset(probe: Probe, base: pathlib.Path) -> Probe:
    """`probe` with the offset of the cut record in the local file, whose records may differ in length."""
    path = base / "2" / models.WARMUP
    if probe.id != "warmup_truncated":
        return probe
    offset = (path.stat().st_size + 7) * 2 // 3
    return Probe(
        probe.section,
        probe.id,
        probe.words,
        json.loads(re.sub("record at 262'", f"record at {offset}'", json.dumps(probe.record))),
    )


def _served(server: servers.Server, name: str, probe: Probe) -> str:
    version = re.search(r"version \{ value: (\d+) \}", probe.record["predict"])[1]
    got = server.predict(name)
    return "" if got == f"OK v{version}" else f"expected OK v{version}, got {got}"


def while_loading(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """Calls during the slow load of version 2, and during that of a new model."""
    base, other = folder / "loading", folder / "slow"
    models.put(made, 1, base)
    with servers.running(program, folder, "--model_name=m", f"--model_base_path={base}") as server:
        slow = _records(*[models.looping(_steps(server) // 10)] * 10)
        for version, where in ((2, base), (1, other)):
            with models.appearing(made, version, where) as path:
                slow(path)
        to, probes = replay.Wire.of(server, folder), recording.load()[LOADING]
        servers.until(lambda: [2, wire.LOADING, 0, ""] in server.states(), 30)
        names = (
            "status_while_loading",
            "predict_v2_while_loading",
            "predict_latest_while_loading",
            "meta_v2_while_loading",
        )
        yield from replay.replay(to, [probes[name] for name in (*names, "reload_while_loading_same")])
        yield Watched(server, "m", base).ends_as(probes["load_timeline"])
        yield from _new_model(to, base, other)


def _steps(server: servers.Server) -> int:
    """The number of loop steps that take _LOADING_SECONDS."""
    server.call(wire.PREDICT, models.looping(10))
    began = time.monotonic()
    server.call(wire.PREDICT, models.looping(50_000))
    return int(50_000 * _LOADING_SECONDS / (time.monotonic() - began))


def _new_model(to: replay.Wire, base: pathlib.Path, other: pathlib.Path) -> Iterator[Seen]:
    """A reload adds a slow model; a second reload, which removes it, must wait for the first."""
    probes = recording.load()[LOADING]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(replay.reload, to, *_both(base, other))
        servers.until(lambda: wire.states(to.stub, "n") == [[1, wire.LOADING, 0, ""]], 30)
        yield from replay.replay(to, [probes["status_new_model_loading"], probes["predict_new_model_loading"]])
        second = replay.reload(to, servers.entry("m", base))
        waited = servers.until(first.done, _AT_ONCE_SECONDS)
        got = (first.result(), second, waited)
    accepted = wire.Answer(probes["reload_blocks"].record["first"]["code"], "", b"\n\0")
    expected = (accepted, accepted, True)
    yield Seen(
        LOADING,
        "reload_blocks",
        "" if got == expected else f"expected (first, second, second waited) {expected}, got {got}",
    )
    yield Seen(LOADING, "reload_blocks_after", replay.settle(to, {"n": probes["reload_blocks_after"].record["states"]}))


def _both(base: pathlib.Path, other: pathlib.Path) -> tuple[str, str]:
    return servers.entry("m", base), servers.entry("n", other)
