"""Section 1_basic: recorded requests, and the probes recorded only in words: malformed calls, deadlines, SIGTERM."""

import pathlib
import signal
import time
from collections.abc import Iterator

from google.protobuf import json_format

from tests.conformance import models, recording, replay, servers, wire
from tests.conformance.outcomes import Seen

SECTION = "1_basic"
_SPECIFIC = "model_version_policy { specific { versions: 1 versions: 2 } }"
_LABELS = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
_ALLOW = "--allow_version_labels_for_unavailable_models=true"
_BOTH = {"add": [[1, wire.AVAILABLE, 0, ""], [2, wire.AVAILABLE, 0, ""]]}
# Probes that list versions or report a version as unknown.
LISTING = ("status_all", "status_label", "status_v3_on_disk")
_STRANGE_METHODS = {
    "unknown_method": "/tensorflow.serving.PredictionService/Nope",
    "unknown_service": "/foo.Bar/Baz",
    "session_service": "/tensorflow.serving.SessionService/SessionRun",
    "reflection": "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}


def run(program: servers.Program, root: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """The whole section, the probes of 13_misc about labels with the same flags, then SIGTERM."""
    config = servers.config_file(folder, servers.entry("add", root / "add", f"{_SPECIFIC} {_LABELS}"))
    with servers.running(program, folder, config, _ALLOW) as server:
        to = replay.Wire.of(server, root)
        yield Seen(SECTION, "startup", replay.settle(to, _BOTH))
        yield from over_the_wire(to, server.target)
        yield from _deadlines(server)
        yield Seen(
            SECTION, "alive", "" if server.process.poll() is None else f"exited with {server.process.returncode}"
        )
        misc = recording.load()["13_misc"].values()
        yield from replay.replay(to, misc)
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(60)
        yield Seen(SECTION, "sigterm", "" if code == -signal.SIGTERM else f"expected exit code -15, got {code}")


def set_up(to: replay.Wire) -> bool:
    """Bring a running server into the state of the section by reloads.

    Returns:
        False if the server still lists versions that it served before.

    Raises:
        AssertionError: the server refuses a reload.
    """

    def available() -> list:
        return [s for s in wire.states(to.stub, "add") if s[1] == wire.AVAILABLE]

    for labels in ("", _LABELS):
        answer = replay.reload(to, servers.entry("add", to.root / "add", f"{_SPECIFIC} {labels}"))
        assert answer.code == "OK", answer
        assert servers.until(lambda: available() == _BOTH["add"], replay.SETTLE_SECONDS), available()
    return to.states(_BOTH) == _BOTH


def over_the_wire(to: replay.Wire, target: str) -> Iterator[Seen]:
    """The probes that need only a HOST:PORT that serves the models of the section."""
    probes = recording.load()[SECTION]
    sent = [probe for probe in probes.values() if probe.id not in ("metadata", "deadline", "deadline_zero")]
    yield from replay.replay(to, sent)
    yield _unpacked(to, probes["meta_ok_unpacked"], probes["meta_ok"])
    for name, method in _STRANGE_METHODS.items():
        yield _seen(probes[name], method, wire.call(to.stub, method, b""))
    good = models.adding("add")
    for name, request in (
        ("garbage_bytes", b"\xff\xff\xff"),
        ("garbage_truncated", good[:-5]),
        ("unknown_field", good + b"\x9a\x06\x03abc"),
        ("invalid_utf8_name", b"\x0a\x04\x0a\x02\xff\xfe"),
    ):
        yield _seen(probes[name], wire.PREDICT, wire.call(to.stub, wire.PREDICT, request))
    yield _seen(probes["metadata"], wire.PREDICT, to.ask(probes["metadata"], metadata=(("x-foo", "bar"),)))
    yield _big_response(to, target)


def _seen(probe: recording.Probe, method: str, got: wire.Answer) -> Seen:
    return Seen(probe.section, probe.id, wire.difference(method, probe.answer, got))


def _unpacked(to: replay.Wire, probe: recording.Probe, packed: recording.Probe) -> Seen:
    answer = to.ask(packed)
    _, types, signatures = wire.decoded(wire.METADATA, answer.response)
    expected = ({"signature_def": probe.record["type_url"]}, probe.record["signature_def_map"])
    got = (types, json_format.MessageToDict(signatures))
    return Seen(probe.section, probe.id, "" if got == expected else f"expected {expected}, got {got}")


def _big_response(to: replay.Wire, target: str) -> Seen:
    """[40000, 16] zeros: the sums, 680,000 small numbers in typed fields, fit into the client's limit of 4 MiB."""
    zeros = ((0,) * 16,) * 40000
    with replay.default_limit(target) as stub:
        answer = wire.call(stub, wire.PREDICT, models.adding("add", a=zeros, b=zeros))
    if answer.code != "OK":
        return Seen(SECTION, "big_response_default_client", f"expected OK, got {answer.code} {answer.message!r}")
    sums = wire.decoded(wire.PREDICT, answer.response).outputs["sum"]
    shape = [dim.size for dim in sums.tensor_shape.dim]
    same = shape == [40000, 17] and len(sums.int64_val) == 680000 and not any(sums.int64_val)
    return Seen(
        SECTION,
        "big_response_default_client",
        "" if same else f"expected 680000 zeros of shape [40000, 17], got {shape}",
    )


def _deadlines(server: servers.Server) -> Iterator[Seen]:
    probes = recording.load()
    to = replay.Wire(server.stub, pathlib.Path(), server.program.poll)
    deadline = probes[SECTION]["deadline"]
    yield from replay.replay(to, [deadline], timeout=0.5)
    recorded = set(probes["13_misc"]["deadline_message_spread"].record["counts"])
    got = {f"{answer.code}: {answer.message}" for answer in (_pressed(server) for _ in range(10))}
    yield Seen(
        "13_misc", "deadline_message_spread", "" if got <= recorded else f"expected one of {recorded}, got {got}"
    )
    yield Seen("13_misc", "after_deadlines", _answers(server))
    call = server.stub.unary_unary(wire.PREDICT).future(models.looping(2_000_000, "add"), timeout=60)
    time.sleep(0.5)
    call.cancel()
    yield Seen(SECTION, "cancel_server_cpu", _answers(server))


def _pressed(server: servers.Server) -> wire.Answer:
    return server.call(wire.PREDICT, models.looping(2_000_000, "add"), timeout=0.15)


def _answers(server: servers.Server) -> str:
    answer = server.predict("add")
    return "" if answer == "OK v2" else f"expected OK v2, got {answer}"
