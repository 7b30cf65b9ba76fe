"""Sections 4_filesystem and 5_blocking: version folders that come, go, are half-written or damaged."""

import dataclasses
import pathlib
import shutil
from collections.abc import Iterator

from tests.conformance import models, recording, servers, wire
from tests.conformance.outcomes import Seen
from tests.conformance.watching import Watched

FILESYSTEM, BLOCKING = "4_filesystem", "5_blocking"
# The real server retries a failed load after a minute, and loads nothing else in between.
_RETRY_SECONDS = 75.0
# Nothing else may load for this long beside a half-written version; the embedded server needs a second or two.
_BLOCKED_SECONDS = 10.0


def watched_without_retries(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """With --max_num_load_retries=0: half-written, damaged and vanishing versions."""
    bases = {"half": [1], "damaged": [1], "vanishing": [1, 2]}
    for name, versions in bases.items():
        for version in versions:
            models.put(made, version, folder / name)
    config = servers.config_file(folder, *(servers.entry(name, folder / name) for name in bases))
    with servers.running(program, folder, config, "--max_num_load_retries=0") as server:
        yield from _half_written_once(Watched(server, "half", folder / "half", "/models/fs_B/hw_retries0"), made)
        # Recorded on the model whose version 2 is dead.
        damaged = Watched(server, "damaged", folder / "damaged", "/models/fs_B/hw_retries0", left_out=(2,))
        yield from _damaged(damaged, made)
        yield from _vanishing(Watched(server, "vanishing", folder / "vanishing", "/models/fs_B/dis"), made)


def _half_written_once(model: Watched, made: pathlib.Path) -> Iterator[Seen]:
    probes, base = recording.load()[FILESYSTEM], model.base
    models.half_written(made, 2, base)
    yield model.ends_as(probes["half_written_retries0"])
    shutil.copy(made / "2" / "saved_model.pb", base / "2")
    yield model.ends_as(probes["half_written_completed_retries0"])
    shutil.rmtree(base / "2")
    removed = model.ends_as(probes["half_written_removed_readded"], "timeline_removed")
    models.put(made, 2, base)
    added = model.ends_as(probes["half_written_removed_readded"], "timeline_readded")
    yield dataclasses.replace(removed, difference="; then ".join(filter(None, (removed.difference, added.difference))))


def _damaged(model: Watched, made: pathlib.Path) -> Iterator[Seen]:
    """Each kind of damage in turn. A version that differs is ignored afterwards, so that it counts once."""
    for name, version, damage in _DAMAGES:
        damage(made, model.base)
        seen = model.ends_as(recording.load()[FILESYSTEM][name])
        yield seen
        if seen.difference:
            model = dataclasses.replace(model, left_out=(*model.left_out, version))


def _garbage(made: pathlib.Path, base: pathlib.Path) -> None:
    with models.appearing(made, 3, base) as version:
        (version / "saved_model.pb").write_bytes(b"no model at all " * 4)


def _cut(made: pathlib.Path, base: pathlib.Path) -> None:
    with models.appearing(made, 3, base, 4) as version:
        content = (version / "saved_model.pb").read_bytes()
        (version / "saved_model.pb").write_bytes(content[: len(content) // 2])


def _no_variables(made: pathlib.Path, base: pathlib.Path) -> None:
    with models.appearing(made, 3, base, 5) as version:
        next((version / "variables").glob("*.data-*")).write_bytes(b"")


def _odd_names(made: pathlib.Path, base: pathlib.Path) -> None:
    for name in ("foo", "7.tmp", "-8"):
        models.put(made, 3, base, name)
    (base / "9").write_bytes(b"a file")


# (probe, its version, the damage)
_DAMAGES = (
    ("corrupt_pb_retries0", 3, _garbage),
    ("truncated_pb_retries0", 4, _cut),
    ("truncated_variables_retries0", 5, _no_variables),
    ("empty_dir_retries0", 6, lambda made, base: (base / "6").mkdir()),
    ("odd_names", 9, _odd_names),
    ("leading_zeros", 10, lambda made, base: models.put(made, 3, base, "0010")),
    ("leading_zeros_and_plain", 10, lambda made, base: models.put(made, 3, base, "10")),
)


def _vanishing(model: Watched, made: pathlib.Path) -> Iterator[Seen]:
    probes, base = recording.load()[FILESYSTEM], model.base
    shutil.rmtree(base / "2")
    yield model.ends_as(probes["dir_disappears"])
    shutil.rmtree(base / "1")
    yield model.ends_as(probes["all_versions_disappear"])
    models.put(made, 3, base)
    yield model.ends_as(probes["version_comes_back"])
    away = base.rename(base.parent / "away")
    yield model.ends_as(probes["base_dir_disappears"])
    away.rename(base)
    yield model.ends_as(probes["base_dir_back"])
    shutil.copytree(made / "1", base / "3", dirs_exist_ok=True)
    seen = model.ends_as(probes["in_place_overwrite"])
    content = model.server.content(model.model)
    yield (
        seen
        if seen.difference or content == 3
        else dataclasses.replace(seen, difference=f"expected files of version 3, got {content}")
    )
    models.put(made, 2, base)
    yield model.ends_as(probes["lower_version_appears"])


def watched_with_retries(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """With the default flags: half-written versions, and the loads that they block."""
    first, second, third = (folder / name for name in ("first", "second", "third"))
    for base in (first, second, third):
        models.put(made, 1, base)
    config = servers.config_file(folder, *(servers.entry(base.name, base) for base in (first, second, third)))
    with servers.running(program, folder, config) as server:
        yield from _half_written(server, made, first, third)
        yield from _then_newer(Watched(server, "second", second), made)


def watched_with_load_threads(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """A half-written version and a newer one, with two concurrent loads."""
    base = folder / "m"
    models.put(made, 1, base)
    with servers.running(
        program, folder, "--model_name=m", f"--model_base_path={base}", "--num_load_threads=2"
    ) as server:
        models.half_written(made, 2, base)
        _wait_loading(server, "m", 2)
        models.put(made, 3, base)
        yield Watched(server, "m", base).ends_as(recording.load()[BLOCKING]["half_written_then_newer_threads"])


def _half_written(
    server: servers.Server, made: pathlib.Path, base: pathlib.Path, other: pathlib.Path
) -> Iterator[Seen]:
    probes, model = recording.load(), Watched(server, base.name, base)
    models.half_written(made, 2, base)
    yield model.ends_as(probes[FILESYSTEM]["half_written_default_retries"])
    models.put(made, 2, other)
    yield Watched(server, other.name, other).ends_as(
        probes[BLOCKING]["half_written_blocks_other_model"], quiet=_BLOCKED_SECONDS
    )
    shutil.copy(made / "2" / "saved_model.pb", base / "2")
    yield model.ends_as(probes[FILESYSTEM]["half_written_completed_default_retries"], wait=_RETRY_SECONDS)


def _then_newer(model: Watched, made: pathlib.Path) -> Iterator[Seen]:
    probes = recording.load()[BLOCKING]
    models.half_written(made, 2, model.base)
    _wait_loading(model.server, model.model, 2)
    models.put(made, 3, model.base)
    yield model.ends_as(probes["half_written_then_newer"], quiet=_BLOCKED_SECONDS)
    shutil.rmtree(model.base / "2")
    yield model.ends_as(probes["half_written_then_newer_removed"])


def _wait_loading(server: servers.Server, model: str, version: int) -> None:
    """Wait until `version` is LOADING: before that, a server that sees a newer version may never try it."""

    def states() -> list:
        return [state[:2] for state in server.states(model)]

    assert servers.until(lambda: [version, wire.LOADING] in states(), 30), states()
