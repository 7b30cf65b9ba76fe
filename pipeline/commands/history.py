"""`bitsum history`: the runs, one line each, with the verdict of every gate, and the trend of the margin."""

import argparse
from typing import TYPE_CHECKING

from components import progress, results
from components.errors import ConfigError
from pipeline import config as configuration
from pipeline import log_capture, nodes
from pipeline.records import relocation

if TYPE_CHECKING:
    from pipeline.records.runs import History, Run

_GATES = (nodes.DATA, nodes.EVALUATION, nodes.PROOF, nodes.INFRA_VALIDATION)
_HEADINGS = ("run", "span", "started", "seconds", "cached", *_GATES, "pushed", "margin", "change", "state")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum history`."""
    parser.add_argument(
        "--last", type=int, default=20, metavar="N", help="show the last N runs; 0 for all (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the runs as JSON, with the reasons of refusals")


def run(args: argparse.Namespace) -> int:
    """Print the runs, oldest first.

    Raises:
        BitsumError: the store cannot be used.
    """
    if args.last < 0:
        raise ConfigError(f"--last = {args.last}: must be at least 0")
    config = configuration.load(args.config, args.set)
    log_capture.silence_database_drivers()
    relocation.lock_and_update_paths(config, progress.note)
    from pipeline.records import metadata_store, runs
    from pipeline.records.lineage_graph import LineageGraph

    with metadata_store.existing(config) as store:
        history = runs.all_runs(LineageGraph(store), args.last)
    results.show(history, _lines, args.json)
    return 0


def _lines(history: "History") -> list[str]:
    return [*_table([_HEADINGS, *map(_row, history.runs)]), _trend(history.runs)]


def _row(run: "Run") -> tuple[str, ...]:
    pushed = f"{run.version}{'' if run.is_new else ' (again)'}" if run.version else "-"
    return (
        run.run,
        run.date or str(run.span),
        results.local_time(run.started),
        f"{(run.finished - run.started).total_seconds():.1f}",
        f"{run.cached} of {run.steps}",
        *(run.gates.get(gate, "-") for gate in _GATES),
        pushed,
        "-" if run.margin is None else f"{run.margin:.6g}",
        "-" if run.change is None else f"{run.change:+.4g}",
        run.state,
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _trend(runs: list["Run"]) -> str:
    """The margins of distinct models; a run that takes its model from the cache adds nothing."""
    margins = [run.margin for run in runs if run.margin is not None and run.change != 0]
    if not margins:
        return "no run has a certified margin"
    values = {"first": margins[0], "last": margins[-1], "least": min(margins), "most": max(margins)}
    listed = ", ".join(f"{name} {margin:.6g}" for name, margin in values.items())
    return f"certified margin: {listed}, of {len(margins)} models"
