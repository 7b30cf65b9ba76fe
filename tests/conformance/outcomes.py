"""What became of each probe on one server: same, different, a deviation with its reason, or not run and why; and the
table of it."""

import dataclasses
import re
from collections.abc import Iterable

EMBEDDED = "embedded"
REAL = "tensorflow_model_server"
SERVERS = (EMBEDDED, REAL)

SAME, DIFFERENT, DEVIATION, NOT_RUN = "same", "different", "deviation", "not run"


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen of a probe: `difference` from the recording in words, empty if there is none."""

    section: str
    id: str
    difference: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.section, self.id


@dataclasses.dataclass(frozen=True)
class Deviation:
    """A difference that is meant: why, and a pattern found in every such difference, so that no other one hides behind
    it.

    `server` is the one that deviates; with `always` false, being the same is fine too.
    """

    reason: str
    pattern: str
    server: str = EMBEDDED
    always: bool = True


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The verdict on a probe, and the reason for it where it is not plainly the same."""

    section: str
    id: str
    verdict: str
    why: str = ""


def judge(seen: Seen, server: str, deviations: dict[tuple[str, str], Deviation]) -> Outcome:
    """The verdict on what was seen on `server`; one that is none of SERVERS may deviate, and need not."""
    deviation = deviations.get(seen.key)
    if not deviation or (server in SERVERS and deviation.server != server):
        return Outcome(*seen.key, DIFFERENT if seen.difference else SAME, seen.difference)
    if not seen.difference and deviation.always and server in SERVERS:
        return Outcome(
            *seen.key, DIFFERENT, "stale deviation: it is the same, so take it out of the table of deviations"
        )
    if not seen.difference:
        return Outcome(*seen.key, SAME)
    if not re.search(deviation.pattern, seen.difference, re.DOTALL):
        return Outcome(*seen.key, DIFFERENT, f"deviates otherwise than {deviation.pattern!r}: {seen.difference}")
    return Outcome(*seen.key, DEVIATION, deviation.reason)


def table(columns: dict[str, Iterable[Outcome]], order: Iterable[tuple[str, str]]) -> str:
    """A line a probe in `order`, then the other outcomes, and a column a server; one without outcomes was not run. Then
    the counts."""
    by_server = {server: {(o.section, o.id): o for o in outcomes} for server, outcomes in columns.items()}
    lines, section = [], None
    for key in dict.fromkeys([*order, *(key for column in by_server.values() for key in column)]):
        if key[0] != section:
            section = key[0]
            lines += ["", f"{section:46}" + "".join(f"  {server:24}" for server in columns)]
        found = [by_server[server].get(key) for server in columns]
        why = "; ".join(dict.fromkeys(outcome.why for outcome in found if outcome and outcome.why))
        lines.append(
            f"  {key[1]:44}"
            + "".join(f"  {outcome.verdict if outcome else NOT_RUN:24}" for outcome in found)
            + f"  {why}"
        )
    return "\n".join(line.rstrip() for line in [*lines, "", *counts(columns)])


def counts(columns: dict[str, Iterable[Outcome]]) -> list[str]:
    """One line a server: how many probes had which verdict."""
    lines = []
    for server, outcomes in columns.items():
        outcomes = list(outcomes)
        numbers = {
            verdict: sum(o.verdict == verdict for o in outcomes) for verdict in (SAME, DEVIATION, DIFFERENT, NOT_RUN)
        }
        told = ", ".join(f"{number} {verdict}" for verdict, number in numbers.items())
        lines.append(f"{server}: {told if outcomes else NOT_RUN}")
    return lines
