"""`bitsum verify MODEL_DIR`: check a SavedModel's certificate against its weights, and its graph against the cell.

The certificate and the weights are checked without TensorFlow. The graph is compared on request: with --graph, which
imports TensorFlow to export the cell again and to check that it loads the same weights, or with --graph-sha256, the
hash of a graph that was compared before. A model with a file that no certified model has
(`components.savedmodel.model_files`) is refused before anything is read.

With --json, one object (docs/json.md). Exit code 0 when proven, 3 when refused, 1 when there is nothing to check: the
model is missing or damaged.
"""

import argparse
import dataclasses
import math
import pathlib
import tempfile
from typing import Any

from components import results
from components.errors import BitsumError, Refusal, unreadable
from components.proof import certificate, checker
from components.savedmodel import export_format
from components.task.transducer import ADDITION, TASKS
from pipeline import config as configuration

_PROVEN, _REFUSED = 0, Refusal.exit_code
_CELL, _HASH = "cell", "hash"
_SAME_GRAPH = {_CELL: "the graph is the cell's", _HASH: "the graph has the given hash"}
_UNNUMBERED = "exported before its format had a number, with the signatures add_bits and add_packed"
_GRAPH = "the graph (--graph compares it with the cell)"
_KERNELS = "the kernels of the server that runs it"


@dataclasses.dataclass(frozen=True)
class Verification:
    """The result of `bitsum verify`; docs/json.md describes the fields."""

    proven: bool
    reason: str
    where: str
    margin: float | None
    slack: float | None
    evaluations: int
    task: str
    model: pathlib.Path
    certificate: pathlib.Path
    foreign_files: list[str]
    ignored_files: list[str]
    units: int | None = None
    weights_sha256: str = ""
    export_format: int | None = None
    graph_sha256: str = ""
    graph_compared_with: str | None = None
    graph_differences: list[str] = dataclasses.field(default_factory=list)
    weight_differences: list[str] = dataclasses.field(default_factory=list)
    not_checked: list[str] = dataclasses.field(default_factory=lambda: [_GRAPH, _KERNELS])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum verify`."""
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="folder of a SavedModel, such as a pushed version")
    parser.add_argument(
        "--certificate", metavar="FILE", help=f"certificate to check (default: MODEL_DIR/{certificate.FILE})"
    )
    parser.add_argument(
        "--task", choices=TASKS, default=ADDITION.name, help="task that must be proven (default %(default)s)"
    )
    graph = parser.add_mutually_exclusive_group()
    graph.add_argument(
        "--graph", action="store_true", help="compare the graph with a fresh export of the cell; imports TensorFlow"
    )
    graph.add_argument(
        "--graph-sha256", metavar="HASH", help="hash that the graph must have; does not import TensorFlow"
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")


def run(args: argparse.Namespace) -> int:
    """Check the model and print the verdict; returns the exit code.

    Raises:
        BitsumError: the model or the certificate file is missing or unreadable.
    """
    from components.savedmodel import model_files

    model_dir = pathlib.Path(args.model_dir)
    try:
        is_folder = model_dir.is_dir()
    except OSError as error:
        raise BitsumError(unreadable(model_dir, error)) from error
    if not is_folder:
        raise BitsumError(f"{model_dir} is not a folder: name the folder that holds saved_model.pb")
    path = model_dir / certificate.FILE if args.certificate is None else pathlib.Path(args.certificate)
    foreign = model_files.foreign(model_dir)
    about = {
        "task": args.task,
        "model": model_dir,
        "certificate": path,
        "foreign_files": foreign,
        "ignored_files": model_files.litter(model_dir),
    }
    if foreign:
        # Do not open any file: it could be a FIFO.
        result = Verification(
            **dataclasses.asdict(checker.Verdict(False, _first(foreign), where="before any step")), **about
        )
    else:
        result = Verification(**_checked(args, model_dir, path), **about)
    results.show(result, lambda result: [_line(result)], args.json)
    return _PROVEN if result.proven else _REFUSED


def _checked(args: argparse.Namespace, model_dir: pathlib.Path, path: pathlib.Path) -> dict[str, Any]:
    from components.savedmodel import certified
    from components.savedmodel.canonical_graph import Graph

    checked = certified.check(model_dir, TASKS[args.task], None if args.certificate is None else path)
    weights, verdict = checked.weights, checked.verdict
    graph = Graph(model_dir)
    sha256 = graph.sha256()
    graph_differences, weight_differences = _differences(args, sha256, weights.units)
    compared_with = _CELL if args.graph else _HASH if args.graph_sha256 is not None else None
    return dataclasses.asdict(verdict) | {
        "proven": verdict.proven and not graph_differences and not weight_differences,
        "margin": _finite(verdict.margin),
        "slack": _finite(verdict.slack),
        "units": weights.units,
        "weights_sha256": "" if weights.problem() else weights.sha256(),
        "export_format": export_format.of(graph),
        "graph_sha256": sha256,
        "graph_compared_with": compared_with,
        "graph_differences": graph_differences,
        "weight_differences": weight_differences,
        "not_checked": [_KERNELS] if compared_with else [_GRAPH, _KERNELS],
    }


def _differences(args: argparse.Namespace, sha256: str, units: int) -> tuple[list[str], list[str]]:
    """The differences of the graph from its reference, and of the weights from those that TensorFlow loads."""
    if args.graph_sha256 is not None:
        wanted = args.graph_sha256.strip().lower()
        return [] if sha256 == wanted else [f"its hash is {sha256}, not {wanted[:64]}"], []
    return _compared_with_the_cell(args, units) if args.graph else ([], [])


def _compared_with_the_cell(args: argparse.Namespace, units: int) -> tuple[list[str], list[str]]:
    from pipeline import log_capture

    with (
        tempfile.TemporaryDirectory(prefix="bitsum-verify-") as folder,
        log_capture.redirect_output(pathlib.Path(folder) / "log"),
    ):
        from components.model import expected_graph
        from components.savedmodel import loaded_weights

        knobs = configuration.load(args.config, args.set).proof
        return expected_graph.differences(args.model_dir, units, TASKS[args.task], knobs), loaded_weights.differences(
            args.model_dir
        )


def _line(result: Verification) -> str:
    values = (("worst margin", result.margin), ("tightest containment", result.slack))
    facts = [f"{name} {value:.6g}" for name, value in values if value is not None]
    if result.units is not None:
        facts += [f"{result.units} units", f"weights {result.weights_sha256[:12] or 'of no cell'}"]
    if result.graph_compared_with and not result.graph_differences:
        facts.append(_SAME_GRAPH[result.graph_compared_with])
    if result.ignored_files:
        facts.append("ignored: " + ", ".join(result.ignored_files))
    if result.export_format == export_format.FIRST:
        facts.append(_UNNUMBERED)
    facts.append("not checked: " + ", ".join(result.not_checked))
    return f"{_heading(result)}; " + "; ".join(facts)


def _heading(result: Verification) -> str:
    if result.proven:
        return result.reason
    problems = [] if result.reason.startswith("proven") else [f"{result.reason}, {result.where}"]
    if result.graph_differences:
        problems.append(f"the graph differs: {_first(result.graph_differences)}")
    if result.weight_differences:
        problems.append(_first(result.weight_differences))
    return f"refused: {result.task} is not proven: " + "; ".join(problems)


def _first(lines: list[str]) -> str:
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def _finite(value: float | None) -> float | None:
    """None for an infinite slack, which occurs without boxes, or if no side of one can be crossed."""
    return value if value is not None and math.isfinite(value) else None
