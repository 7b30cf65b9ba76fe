"""Replays the recorded requests and compares the answers and, after reloads, the states of the versions."""

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

# The limit until states match the recording: a load or two on a busy machine.
SETTLE_SECONDS = 30.0
_POLLS_AFTER_DIFFERENCE = 5
_RECORDED_PATH = re.compile(rf"{RECORDED_MODELS}(?:fs\w*/)?")
# An exceeded deadline gives either text: the client's or that of the server's run.
_DEADLINE_TEXTS = ("Deadline Exceeded", "Timed out waiting for notification")


@dataclasses.dataclass(frozen=True)
class Wire:
    """A server under test: `root` is the local folder in place of the recorded one, `poll` as in servers.Program."""

    stub: grpc.Channel
    root: pathlib.Path
    poll: float

    @classmethod
    def of(cls, server: servers.Server, root: pathlib.Path) -> "Wire":
        return cls(server.stub, root, server.program.poll)

    def ask(self, probe: Probe, timeout: float = wire.CALL_SECONDS, metadata: tuple = ()) -> wire.Answer:
        """The answer to the request of `probe` with local base paths."""
        return wire.call(self.stub, probe.method, self.localized(probe), timeout, metadata)

    def localized(self, probe: Probe) -> bytes:
        """The request of `probe` with local base paths."""
        if probe.method != wire.RELOAD:
            return probe.request
        request = wire.request_type(wire.RELOAD).FromString(probe.request)
        for config in request.config.model_config_list.config:
            config.base_path = self.local_path(config.base_path)
        return request.SerializeToString()

    def local_path(self, text: str) -> str:
        """`text` with `root` in place of the recorded folder of models."""
        return _RECORDED_PATH.sub(lambda _: f"{self.root}/", text)

    def states(self, models: Iterable[str]) -> dict[str, list]:
        """The states of the versions of each model."""
        return {model: wire.states(self.stub, model) for model in models}


def replay(to: Wire, probes: Iterable[Probe], timeout: float = wire.CALL_SECONDS) -> Iterator[Seen]:
    """The results of `probes` in turn, without those that have only words.

    The states omit versions that had ended before, which a fresh server would not list.
    """
    before: dict[str, list] = {}
    for probe in probes:
        if not probe.has_request:
            continue
        for model in probe.states_after:
            before.setdefault(model, _ended(wire.states(to.stub, model)))
        got = to.ask(probe, timeout)
        difference = _answer_difference(probe, got)
        if difference and probe.states_after:
            # The next probe was recorded two seconds later.
            time.sleep(_POLLS_AFTER_DIFFERENCE * to.poll)
        elif probe.states_after:
            difference = _states_difference(to, probe, before)
        yield Seen(probe.section, probe.id, difference)


def settle(
    to: Wire, expected: dict[str, list], before: dict[str, list] | None = None, seconds: float = SETTLE_SECONDS
) -> str:
    """Wait until the states, without those in `before`, are `expected`; returns the final difference."""
    states: dict[str, list] = {}

    def reached() -> bool:
        states.update(_without(to.states(expected), expected, before or {}))
        return states == expected

    return "" if servers.until(reached, seconds) else f"expected states {expected}, got {states}"


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
        states = _without(to.states(expected), expected, before)
        if _unloaded(states) != expected:
            return f"expected states {expected} right after the answer, got {states}"
        time.sleep(1.5 * to.poll)
    return settle(to, expected, before)


def _unloaded(states: dict[str, list]) -> dict[str, list]:
    """`states` after the unloads in progress: in the recording, the calls happened to take longer than the unloads."""
    return {
        model: [[state[0], wire.END, *state[2:]] if state[1] == wire.UNLOADING else state for state in versions]
        for model, versions in states.items()
    }


def _ended(states: list) -> list:
    return [state for state in states if state[1:] == [wire.END, 0, ""]]


def _without(states: dict[str, list], expected: dict[str, list], before: dict[str, list]) -> dict[str, list]:
    numbers = {model: [state[0] for state in versions] for model, versions in expected.items()}
    return {
        model: [s for s in versions if s not in before.get(model, []) or s[0] in numbers[model]]
        for model, versions in states.items()
    }


@contextlib.contextmanager
def default_limit(target: str) -> Iterator[grpc.Channel]:
    """A channel with gRPC's default limit of 4 MiB for responses."""
    with wire.channel(target, []) as stub:
        yield stub
