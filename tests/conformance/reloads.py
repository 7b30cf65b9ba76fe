"""Sections 2_reload and 3_reload_fresh: HandleReloadConfigRequest in sequence, and on fresh servers."""

import itertools
import pathlib
from collections.abc import Iterator

from tests.conformance import models, recording, replay, servers, wire
from tests.conformance.outcomes import Seen
from tests.conformance.recording import Probe

IN_SEQUENCE, FRESH = "2_reload", "3_reload_fresh"
_SPECIFIC = "model_version_policy { specific { versions: 1 versions: 2 } }"
# A real server refuses or hangs every reload after these, so that each comes last on its server.
_POISON = "reload_no_platform2"
_HANGING = ("reload_nonexistent_path", "reload_empty_dir")
# The timeout of calls that never return.
_HANGING_SECONDS = 3.0
_STATES = {"latest": [[3, wire.AVAILABLE, 0, ""]], "specific": [[1, wire.AVAILABLE, 0, ""], [2, wire.AVAILABLE, 0, ""]]}


def folders(made: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    """Make the folders named by the recorded requests, below `root`."""
    for name in ("add2", "other", "other2"):
        for version in (1, 2):
            models.put(made, version, root / name)
    for version in (1, 2, 3):
        models.put(made, version, root / "add")
    (root / "emptydir").mkdir()
    return root


def in_sequence(program: servers.Program, root: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """The long sequence of 2_reload on one server."""
    probes = list(recording.load()[IN_SEQUENCE].values())
    with servers.running(program, folder, "--model_name=add", f"--model_base_path={root / 'add'}") as server:
        to = replay.Wire.of(server, root)
        yield Seen(IN_SEQUENCE, "policy_default", replay.settle(to, {"add": probes[0].record["states"]}))
        yield from replay.replay(to, itertools.takewhile(lambda probe: probe.id not in _HANGING, probes))


def hanging(program: servers.Program, root: pathlib.Path, folder: pathlib.Path, name: str) -> Iterator[Seen]:
    """One of _HANGING: a new model without a version, for which the real server waits, and the reload after it."""
    probes = [probe for probe in recording.load()[IN_SEQUENCE].values() if probe.id.startswith(name)]
    with servers.running(program, folder, "--model_name=add", f"--model_base_path={root / 'add'}") as server:
        yield from replay.replay(replay.Wire.of(server, root), probes, _HANGING_SECONDS)


def fresh(program: servers.Program, root: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """The reloads recorded on fresh servers, replayed on one server that is reset before each."""
    with servers.running(program, folder, "--model_name=add", f"--model_base_path={root / 'add'}") as server:
        to = replay.Wire.of(server, root)
        for start, group in _groups():
            policy = "" if start == "latest" else _SPECIFIC
            replay.reload(to, servers.entry("add", root / "add", policy))
            difference = _reset(to, _STATES[start])
            if difference:
                yield from (Seen(probe.section, probe.id, f"cannot reset the server: {difference}") for probe in group)
            else:
                yield from replay.replay(to, group)


def _reset(to: replay.Wire, expected: list) -> str:
    states: list = []

    def reached() -> bool:
        states[:] = [state for state in wire.states(to.stub, "add") if state[1] != wire.END]
        return states == expected

    return "" if servers.until(reached, replay.SETTLE_SECONDS) else f"expected {expected}, got {states}"


def _groups() -> list[tuple[str, list[Probe]]]:
    """(initial state, probes) of each fresh server of the recording; the one that breaks later reloads comes last."""
    sequence = list(recording.load()[IN_SEQUENCE].values())
    groups = [
        ("latest", [p for p in sequence if p.id.startswith(f"reload_specific_{kind}missing")])
        for kind in ("", "partly_")
    ]
    by_first: dict[str, list[Probe]] = {}
    for probe in recording.load()[FRESH].values():
        by_first.setdefault(probe.id.removesuffix("_then_good"), []).append(probe)
    poison = by_first.pop(_POISON)
    return [*groups, *(("specific", group) for group in by_first.values()), ("specific", poison)]
