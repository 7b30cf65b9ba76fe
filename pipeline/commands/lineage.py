"""`bitsum lineage VERSION`: where a pushed version comes from, according to the metadata store and its artifacts."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from components import progress, results
from pipeline import config as configuration
from pipeline import log_capture
from pipeline.records import relocation

if TYPE_CHECKING:
    from pipeline.records.lineage import Approval, Lineage, Schema, Span

# Of a step, in characters.
_MAX_KNOBS = 240


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum lineage`."""
    parser.add_argument(
        "version", nargs="?", type=int, metavar="VERSION", help="the pushed version (default: the newest one)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the whole lineage as JSON, with all knobs and the full training curve",
    )


def run(args: argparse.Namespace) -> int:
    """Print the lineage.

    Raises:
        BitsumError: the store cannot be used, or does not know the version.
    """
    config = configuration.load(args.config, args.set)
    log_capture.silence_database_drivers()
    relocation.lock_and_update_paths(config, progress.note)
    from pipeline.records import lineage, metadata_store
    from pipeline.records.lineage_graph import LineageGraph

    with metadata_store.existing(config) as store:
        result = lineage.of_version(LineageGraph(store), config.push_to, args.version)
    results.show(result, _lines, args.json)
    return 0


def _lines(lineage: "Lineage") -> list[str]:
    started, finished = results.local_time(lineage.started), results.local_time(lineage.finished)
    return [
        f"version {lineage.version}: {lineage.state}, {lineage.path}",
        f"  run         {lineage.run}, {started} to {finished}; {lineage.task}",
        _model(lineage),
        *map(_span, lineage.spans),
        f"  schema      {_schema(lineage.schema)}",
        f"  config      sha256 {lineage.config.sha256}",
        *[f"    {name}: {_knobs(knobs)}" for name, knobs in lineage.config.knobs.items()],
        f"  code        sha256 {lineage.code_sha256}",
        *_curve(lineage.training.curve),
        *[f"  {gate.gate}: {gate.word}, {gate.reason}" for gate in lineage.gates],
        "  blessed by",
        *[f"    {by.node:<14}  {results.local_time(by.at)}, {_where(by)}" for by in lineage.blessed_by],
    ]


def _model(lineage: "Lineage") -> str:
    bases = [
        f"artifact {base.artifact} of run {base.run}{f' (version {base.version})' if base.version else ''}"
        for base in lineage.bases
    ]
    start = f"warm start from {', which started from '.join(bases)}" if bases else "cold start"
    model = lineage.model
    return f"  model       artifact {model.artifact}, execution {model.execution}, {start}; {model.uri}"


def _schema(schema: "Schema") -> str:
    if not schema.sha256:
        return f"no longer exists, {schema.uri}" if schema.uri else "none"
    return f"{schema.features} features, sha256 {schema.sha256[:12]}, {schema.uri}"


def _span(span: "Span") -> str:
    records = ", ".join(f"{split} {count}" for split, count in span.records.items()) or "no statistics"
    anomalies = "; ".join(span.anomalies) or "no anomalies"
    statistics = ", ".join(span.statistics) or "none"
    notes = "".join(f"; {note}" for note in span.notes)
    name = span.date or str(span.span)
    return f"  span {name:<6} {records} records; {anomalies}{notes}; {span.uri}, statistics {statistics}"


def _knobs(knobs: dict[str, Any]) -> str:
    line = ", ".join(f"{name} {json.dumps(value)}" for name, value in knobs.items())
    return line if len(line) <= _MAX_KNOBS else f"{line[:_MAX_KNOBS]}... (--json shows the rest)"


def _curve(curve: list[dict[str, float]]) -> list[str]:
    """The first and last steps, and a few between."""
    if not curve:
        return ["  training    no curve recorded"]
    shown = sorted({round(index * (len(curve) - 1) / 4) for index in range(5)})
    rows = [
        ", ".join(f"{name} {value:.4g}" for name, value in curve[index].items() if name != "step") for index in shown
    ]
    return [
        "  training",
        *[f"    step {int(curve[index]['step'])}: {row}" for index, row in zip(shown, rows, strict=True)],
    ]


def _where(by: "Approval") -> str:
    owner = f", process {by.process} on {by.host}" if by.host else ""
    return f"run {by.run}, execution {by.execution}{owner}"
