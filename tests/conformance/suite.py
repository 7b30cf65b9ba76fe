"""The parts of the suite, each with its own server, and their outcomes."""

import concurrent.futures
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator

from tests.conformance import (
    basic,
    files,
    limits,
    models,
    outcomes,
    recording,
    reloads,
    replay,
    servers,
    startup,
    swaps,
    warming,
    wire,
)
from tests.conformance.deviations import DEVIATIONS, NOT_RUN
from tests.conformance.outcomes import Outcome, Seen

Part = Callable[[servers.Program, pathlib.Path, pathlib.Path], Iterable[Seen]]
# Parts that run concurrently: mostly they wait for a server to start or to poll the disk.
AT_ONCE = 3
# The section in the table for parts that raised an exception.
FAILED_PARTS = "failed parts"


def _with_folders(part: Callable) -> Part:
    return lambda program, made, folder: part(program, reloads.folders(made, folder / "models"), folder)


# The longest first. The arguments of a part: the server, the folder of the model `add`, and its own folder, which does
# not exist yet.
PARTS: dict[str, Part] = {
    "startup": startup.run,
    "warmup": warming.warmups,
    "basic": lambda program, made, folder: basic.run(program, made.parent, folder),
    "reload_fresh": _with_folders(reloads.fresh),
    "files": files.watched_without_retries,
    "sizes_and_health": limits.sizes_and_health,
    "reload_in_sequence": _with_folders(reloads.in_sequence),
    "while_loading": warming.while_loading,
    "files_with_retries": files.watched_with_retries,
    "hot_swap": swaps.run,
    "batching": limits.batching,
    "hot_swap_slow_copy": swaps.slow_copy,
    "warmup_off": functools.partial(warming.with_flags, name="warmup_off"),
    "warmup_iterations": functools.partial(warming.with_flags, name="warmup_iterations"),
    "files_with_load_threads": files.watched_with_load_threads,
    "reload_missing_path": _with_folders(functools.partial(reloads.hanging, name="reload_nonexistent_path")),
    "reload_empty_path": _with_folders(functools.partial(reloads.hanging, name="reload_empty_dir")),
}


def run_part(name: str, program: servers.Program, shared: pathlib.Path, folder: pathlib.Path) -> list[Outcome]:
    """The outcomes of one part; several processes may share the models in `shared`, `folder` does not exist yet."""
    made = models.make(shared)
    return [outcomes.judge(seen, program.name, DEVIATIONS) for seen in PARTS[name](program, made, folder)]


def run(program: servers.Program, folder: pathlib.Path, parts: Iterable[str] = tuple(PARTS)) -> list[Outcome]:
    """The outcomes of `parts` and the probes not run; with all parts, a probe without an outcome is a difference."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes_of_parts = pool.map(lambda name: _part_or_failure(name, program, folder), parts)
        seen = [outcome for part in outcomes_of_parts for outcome in part] + not_run()
    covered = {(outcome.section, outcome.id) for outcome in seen}
    forgotten = [key for key in order() if key not in covered] if set(parts) == set(PARTS) else []
    return seen + [Outcome(*key, outcomes.DIFFERENT, "no part covers it") for key in forgotten]


def _part_or_failure(name: str, program: servers.Program, folder: pathlib.Path) -> list[Outcome]:
    """The outcomes of a part; an exception, such as a server that does not start, becomes an outcome."""
    try:
        return run_part(name, program, folder, folder / program.name / name)
    except Exception as error:
        return [
            Outcome(
                FAILED_PARTS, name, outcomes.DIFFERENT, f"{type(error).__name__}: {' '.join(str(error).split())[-500:]}"
            )
        ]


def over_the_wire(target: str, root: pathlib.Path, poll: float) -> list[Outcome]:
    """The outcomes of the section that needs only HOST:PORT of a server that reads the models below `root`."""
    with wire.channel(target) as stub:
        to = replay.Wire(stub, root, poll)
        fresh = basic.set_up(to)
        judged = [outcomes.judge(seen, target, DEVIATIONS) for seen in basic.over_the_wire(to, target)]
    stale = "the server has served other versions before"
    unfit = {outcome for outcome in judged if not fresh and outcome.id in basic.LISTING}
    return [
        Outcome(outcome.section, outcome.id, outcomes.NOT_RUN, stale) if outcome in unfit else outcome
        for outcome in judged
    ] + not_run()


def not_run() -> list[Outcome]:
    """The probes that no part runs, with the reason."""
    return [Outcome(*key, outcomes.NOT_RUN, why) for key, why in NOT_RUN.items()]


def order() -> Iterator[tuple[str, str]]:
    """Every probe of the recording."""
    return ((section, probe) for section, probes in recording.load().items() for probe in probes)
