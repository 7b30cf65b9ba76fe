"""Sends the recorded requests to a server again and compares the answers, and after reloads the states of the
versions."""

import contextlib
import dataclasses
import pathlib
import re
import time
from collections.abc import Iterable, Iterator

import grpc

from tests.conformance import servers, wire
from tests.conformance.outcomes import Seen
from tests.conformance.recording import RECORDED_MODELS, Probe

# How long states may take to become as recorded: a load or two on a busy machine.
SETTLE_SECONDS = 30.0
_AFTER_ANOTHER_ANSWER_POLLS = 5
_RECORDED_PATH = re.compile(rf"{RECORDED_MODELS}(?:fs\w*/)?")
# Who asked for a deadline gets one of these, as it happens: the client's own words or those of the server's run.
_DEADLINE_TEXTS = ("Deadline Exceeded", "Timed out waiting for notification")


@dataclasses.dataclass(frozen=True)
class Wire:
    """Where requests go: `root` is the local folder that stands for the one of the recording, `poll` as of
    servers.Program."""

    stub: grpc.Channel
    root: pathlib.Path
    poll: float

    @classmethod
    def of(cls, server: servers.Server, root: pathlib.Path) -> "Wire":
        return cls(server.stub, root, server.program.poll)

    def ask(self, probe: Probe, timeout: float = wire.CALL_SECONDS, metadata: tuple = ()) -> wire.Answer:
        """The answer to the request of `probe`, with the local base paths."""
        return wire.call(self.stub, probe.method, self.localized(probe), timeout, metadata)

    def localized(self, probe: Probe) -> bytes:
        """The request of `probe` with the local base paths."""
        if probe.method != wire.RELOAD:
            return probe.request
        request = wire.request_type(wire.RELOAD).FromString(probe.request)
        for config in request.config.model_config_list.config:
            config.base_path = self.local_path(config.base_path)
        return request.SerializeToString()

    def local_path(self, text: str) -> str:
        """`text` with the recorded folders of models replaced by `root`."""
        return _RECORDED_PATH.sub(lambda _: f"{self.root}/", text)

    def states(self, models: Iterable[str]) -> dict[str, list]:
        """The states of the versions of each of `models`."""
        return {model: wire.states(self.stub, model) for model in models}


def replay(to: Wire, probes: Iterable[Probe], timeout: float = wire.CALL_SECONDS) -> Iterator[Seen]:
    """What is seen of each of `probes` in turn; those told in words are passed over.

    Versions that had ended before, which a fresh server would not know of, are left out of the states.
    """
    before: dict[str, list] = {}
    for probe in probes:
        if not probe.has_request:
            continue
        for model in probe.states_after:
            before.setdefault(model, _ended(wire.states(to.stub, model)))
        got = to.ask(probe, timeout)
        found = _answer_difference(probe, got)
        if found and probe.states_after:
            # What comes next was recorded two seconds later.
            time.sleep(_AFTER_ANOTHER_ANSWER_POLLS * to.poll)
        elif probe.states_after:
            found = _states_difference(to, probe, before)
        yield Seen(probe.section, probe.id, found)


def settle(
    to: Wire, expected: dict[str, list], before: dict[str, list] | None = None, seconds: float = SETTLE_SECONDS
) -> str:
    """Wait until the states are `expected`, a model's versions in `before` aside; how they differ in the end."""
    found: dict[str, list] = {}

    def reached() -> bool:
        found.update(_without(to.states(expected), expected, before or {}))
        return found == expected

    return "" if servers.until(reached, seconds) else f"expected states {expected}, got {found}"


def reload(to: Wire, *entries: str) -> wire.Answer:
    """HandleReloadConfigRequest with these `config` entries in text format."""
    from google.protobuf import text_format

    request = wire.request_type(wire.RELOAD)()
    text_format.Parse(
        "config { model_config_list { " + " ".join(f"config {{ {entry} }}" for entry in entries) + " } }", request
    )
    return wire.call(to.stub, wire.RELOAD, request.SerializeToString())


def _answer_difference(probe: Probe, got: wire.Answer) -> str:
    expected = probe.answer
    if expected.message in _DEADLINE_TEXTS and got.message in _DEADLINE_TEXTS:
        expected = dataclasses.replace(expected, message=got.message)
    return wire.difference(probe.method, expected, got)


def _states_difference(to: Wire, probe: Probe, before: dict[str, list]) -> str:
    expected = probe.states_after
    if not probe.settled_at_once:
        return settle(to, expected, before)
    for _ in range(2):
        found = _without(to.states(expected), expected, before)
        if _unloaded(found) != expected:
            return f"expected states {expected} from the answer on, got {found}"
        time.sleep(1.5 * to.poll)
    return settle(to, expected, before)


def _unloaded(states: dict[str, list]) -> dict[str, list]:
    """`states` as they are once every unload under way is over: the recorded calls took long enough for that, which was
    luck."""
    return {
        model: [[state[0], wire.END, *state[2:]] if state[1] == wire.UNLOADING else state for state in found]
        for model, found in states.items()
    }


def _ended(states: list) -> list:
    return [state for state in states if state[1:] == [wire.END, 0, ""]]


def _without(states: dict[str, list], expected: dict[str, list], before: dict[str, list]) -> dict[str, list]:
    known = {model: [state[0] for state in wanted] for model, wanted in expected.items()}
    return {
        model: [s for s in found if s not in before.get(model, []) or s[0] in known[model]]
        for model, found in states.items()
    }


@contextlib.contextmanager
def default_limit(target: str) -> Iterator[grpc.Channel]:
    """A channel with gRPC's own limit of 4 MiB for what it receives."""
    with wire.channel(target, []) as stub:
        yield stub
