"""Watches a model's versions while files change, and compares where it ends with the timeline that was recorded."""

import dataclasses
import json
import pathlib
import re
import time
from typing import Any

from tests.conformance import replay, servers
from tests.conformance.outcomes import Seen
from tests.conformance.recording import Probe

# For so many looks at the disk nothing may change that did not change in the recording.
_QUIET_POLLS = 4
# What does not change for so long has settled: longer than a load takes.
_STILL_SECONDS = 2.0
_FUNCTION = re.compile(r"\{\{function_node \w+\}\}")


@dataclasses.dataclass(frozen=True)
class Watched:
    """A model on a server: its name and folder, the folder that the recorded texts name in place of it, versions to
    pass over."""

    server: servers.Server
    model: str
    base: pathlib.Path
    recorded_base: str = ""
    left_out: tuple[int, ...] = ()

    def look(self, with_predict: bool = True) -> Any:
        """[states, what Predict says], as in the recorded timelines, or the states alone."""
        states = self._kept(normal(self.server.states(self.model)))
        return [states, self.server.predict(self.model)] if with_predict else states

    def localized(self, recorded: Any) -> Any:
        """A recorded look, with the folder and the name of this model."""
        text = (
            json.dumps(recorded)
            .replace("{name: m ", f"{{name: {self.model} ")
            .replace("Latest(m)", f"Latest({self.model})")
        )
        look = normal(json.loads(text.replace(self.recorded_base, str(self.base)) if self.recorded_base else text))
        return [self._kept(look[0]), look[1]] if self.left_out else look

    def _settled(self, with_predict: bool) -> Any:
        """A look once nothing has changed for a while."""
        looks = [self.look(with_predict)]

        def still() -> bool:
            time.sleep(_STILL_SECONDS)
            looks.append(self.look(with_predict))
            return looks[-1] == looks[-2]

        servers.until(still, replay.SETTLE_SECONDS)
        return looks[-1]

    def _kept(self, states: list) -> list:
        """`states` without the versions to pass over."""
        return [state for state in states if state[0] not in self.left_out]

    def ends_as(
        self, probe: Probe, timeline: str = "timeline", quiet: float | None = None, wait: float = replay.SETTLE_SECONDS
    ) -> Seen:
        """Whether the model comes to where the recorded `timeline` ended, and stays there.

        Args:
            quiet: seconds for which it has to stay; by default a few looks at the disk.
            wait: seconds in which it has to come there; a recorded timeline of one entry is there from the start.
        """
        entries = [self.localized(entry[1]) for entry in probe.record[timeline]]
        expected = entries[-1]
        with_predict = isinstance(expected[-1], str) and not isinstance(expected[0], str)
        found = []
        if len(entries) > 1 and not servers.until(
            lambda: found.append(self.look(with_predict)) or found[-1] == expected, wait
        ):
            return Seen(probe.section, probe.id, f"expected {expected} in the end, got {found[-1]}")
        end = time.monotonic() + (quiet or _QUIET_POLLS * self.server.program.poll)
        while True:
            if self.look(with_predict) != expected:
                return Seen(probe.section, probe.id, f"expected {expected} to last, got {self._settled(with_predict)}")
            if time.monotonic() > end:
                return Seen(probe.section, probe.id, _strange_predictions(entries, found) if with_predict else "")
            time.sleep(0.1)


def normal(recorded: Any) -> Any:
    """States without the names of traced functions in their texts: Python's loader restores variables in another
    function."""
    if isinstance(recorded, str):
        return _FUNCTION.sub("", recorded)
    return [normal(item) for item in recorded] if isinstance(recorded, list) else recorded


def _strange_predictions(entries: list, found: list) -> str:
    """Answers to Predict on the way that were never seen in the recording."""
    strange = {look[1] for look in found} - {entry[1] for entry in entries}
    return f"on the way Predict said {sorted(strange)}" if strange else ""
