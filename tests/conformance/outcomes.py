"""The verdict on each probe (same, different, deviation, not run), its reason, and the table of verdicts."""

import dataclasses
import re
from collections.abc import Iterable

EMBEDDED = "embedded"
REAL = "tensorflow_model_server"
SERVERS = (EMBEDDED, REAL)

SAME, DIFFERENT, DEVIATION, NOT_RUN = "same", "different", "deviation", "not run"


@dataclasses.dataclass(frozen=True)
class Seen:
    """The result of a probe: its `difference` from the recording in words, empty without a difference."""

    section: str
    id: str
    difference: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.section, self.id


@dataclasses.dataclass(frozen=True)
class Deviation:
    """An intended difference: its reason, and a pattern that must match it, so that it hides no other difference.

    `server` is the one that deviates; with `always` false, it need not.
    """

    reason: str
    pattern: str
    server: str = EMBEDDED
    always: bool = True


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The verdict on a probe, and the reason unless it is the same."""

    section: str
    id: str
    verdict: str
    why: str = ""


def judge(seen: Seen, server: str, deviations: dict[tuple[str, str], Deviation]) -> Outcome:
    """The verdict on the result of a probe on `server`; a server outside SERVERS may deviate but need not."""
    deviation = deviations.get(seen.key)
    if not deviation or (server in SERVERS and deviation.server != server):
        return Outcome(*seen.key, DIFFERENT if seen.difference else SAME, seen.difference)
    if not seen.difference and deviation.always and server in SERVERS:
        return Outcome(*seen.key, DIFFERENT, "stale deviation: no difference, so remove it from the deviations")
    if not seen.difference:
        return Outcome(*seen.key, SAME)
    if not re.search(deviation.pattern, seen.difference, re.DOTALL):
        return Outcome(*seen.key, DIFFERENT, f"the deviation does not match {deviation.pattern!r}: {seen.difference}")
    return Outcome(*seen.key, DEVIATION, deviation.reason)


def table(columns: dict[str, Iterable[Outcome]], order: Iterable[tuple[str, str]]) -> str:
    """One line per probe, first those in `order`, one column per server, then the counts. A server without outcomes was
    not run."""
    by_server = {server: {(o.section, o.id): o for o in outcomes} for server, outcomes in columns.items()}
    lines, section = [], None
    for key in dict.fromkeys([*order, *(key for column in by_server.values() for key in column)]):
        if key[0] != section:
            section = key[0]
            lines += ["", f"{section:46}" + "".join(f"  {server:24}" for server in columns)]
        outcomes = [by_server[server].get(key) for server in columns]
        why = "; ".join(dict.fromkeys(outcome.why for outcome in outcomes if outcome and outcome.why))
        lines.append(
            f"  {key[1]:44}"
            + "".join(f"  {outcome.verdict if outcome else NOT_RUN:24}" for outcome in outcomes)
            + f"  {why}"
        )
    return "\n".join(line.rstrip() for line in [*lines, "", *counts(columns)])


def counts(columns: dict[str, Iterable[Outcome]]) -> list[str]:
    """One line per server with the count of each verdict."""
    lines = []
    for server, outcomes in columns.items():
        outcomes = list(outcomes)
        numbers = {
            verdict: sum(o.verdict == verdict for o in outcomes) for verdict in (SAME, DEVIATION, DIFFERENT, NOT_RUN)
        }
        text = ", ".join(f"{number} {verdict}" for verdict, number in numbers.items())
        lines.append(f"{server}: {text if outcomes else NOT_RUN}")
    return lines
