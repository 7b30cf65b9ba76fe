"""Watches a model's versions while files change, and compares the final state with the recorded timeline."""

import dataclasses
import json
import pathlib
import re
import time
from typing import Any

from tests.conformance import replay, servers
from tests.conformance.outcomes import Seen
from tests.conformance.recording import Probe

# The number of polls of the disk for which the final state must last.
_QUIET_POLLS = 4
# A state that lasts this long is final: longer than a load takes.
_STILL_SECONDS = 2.0
_FUNCTION = re.compile(r"\{\{function_node \w+\}\}")


@dataclasses.dataclass(frozen=True)
class Watched:
    """A model on a server: its name and folder, the folder's name in the recorded texts, and versions to ignore."""

    server: servers.Server
    model: str
    base: pathlib.Path
    recorded_base: str = ""
    left_out: tuple[int, ...] = ()

    def look(self, with_predict: bool = True) -> Any:
        """[states, answer to Predict], as in the recorded timelines, or only the states."""
        states = self._kept(normal(self.server.states(self.model)))
        return [states, self.server.predict(self.model)] if with_predict else states

    def localized(self, recorded: Any) -> Any:
        """A recorded look with the folder and name of this model."""
        text = (
            json.dumps(recorded)
            .replace("{name: m ", f"{{name: {self.model} ")
            .replace("Latest(m)", f"Latest({self.model})")
        )
        look = normal(json.loads(text.replace(self.recorded_base, str(self.base)) if self.recorded_base else text))
        return [self._kept(look[0]), look[1]] if self.left_out else look

    def _settled(self, with_predict: bool) -> Any:
        """A look after the state has not changed for a while."""
        looks = [self.look(with_predict)]

        def still() -> bool:
            time.sleep(_STILL_SECONDS)
            looks.append(self.look(with_predict))
            return looks[-1] == looks[-2]

        servers.until(still, replay.SETTLE_SECONDS)
        return looks[-1]

    def _kept(self, states: list) -> list:
        """`states` without the ignored versions."""
        return [state for state in states if state[0] not in self.left_out]

    def ends_as(
        self, probe: Probe, timeline: str = "timeline", quiet: float | None = None, wait: float = replay.SETTLE_SECONDS
    ) -> Seen:
        """Whether the model reaches the final state of the recorded `timeline` and keeps it.

        Args:
            quiet: seconds for which the state must last; by default a few polls of the disk.
            wait: seconds until the state must be reached; a timeline with one entry starts in it.
        """
        entries = [self.localized(entry[1]) for entry in probe.record[timeline]]
        expected = entries[-1]
        with_predict = isinstance(expected[-1], str) and not isinstance(expected[0], str)
        looks: list = []
        if len(entries) > 1 and not servers.until(
            lambda: looks.append(self.look(with_predict)) or looks[-1] == expected, wait
        ):
            return Seen(probe.section, probe.id, f"expected {expected} in the end, got {looks[-1]}")
        end = time.monotonic() + (quiet or _QUIET_POLLS * self.server.program.poll)
        while True:
            if self.look(with_predict) != expected:
                return Seen(probe.section, probe.id, f"expected {expected} to last, got {self._settled(with_predict)}")
            if time.monotonic() > end:
                return Seen(probe.section, probe.id, _unexpected_predictions(entries, looks) if with_predict else "")
            time.sleep(0.1)


def normal(recorded: Any) -> Any:
    """States without the names of traced functions, because Python's loader restores variables in another function."""
    if isinstance(recorded, str):
        return _FUNCTION.sub("", recorded)
    return [normal(item) for item in recorded] if isinstance(recorded, list) else recorded


def _unexpected_predictions(entries: list, looks: list) -> str:
    """The answers to Predict before the final state that the recording does not have."""
    unexpected = {look[1] for look in looks} - {entry[1] for entry in entries}
    return f"before the final state, Predict answered {sorted(unexpected)}" if unexpected else ""
