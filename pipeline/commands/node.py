"""`bitsum node`: run one node of the graph, as part of a scheduled run, or list the graph for the scheduler.

    bitsum node --list --json > graph.json                              # nodes and edges
    bitsum node Trainer --run-id 2026-11-22 --set data.span=2026-11-22  # code: 0 done, 3 refused, 1 failed, 2 usage
    bitsum node check --run-id 2026-11-22                               # 3 if the newest version is for a later span
    bitsum node verdict --run-id 2026-11-22                             # 3 if a gate refused the model

The nodes of a run share its id and knobs. `check` runs first and stops a run whose model would not be pushed. A gate
that blesses ends with 0 even if it refuses, so that later nodes see the blessing; `verdict` then reports the refusal.
Independent nodes of one run may run at the same time; `bitsum run` waits for them.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import sys
import traceback
from typing import Any

from components.errors import ConfigError
from components.printable import say
from components.progress import Progress
from components.savedmodel import push_order
from pipeline import config as configuration
from pipeline import log_capture, nodes, root_lock, workspace
from pipeline.config import Config
from pipeline.records import relocation

CHECK = "check"
VERDICT = "verdict"
# The run id becomes the name of a log file, and of a context in the metadata store.
_RUN_ID = re.compile(r"[\w.:+-]{1,200}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum node`."""
    parser.add_argument(
        "node",
        nargs="?",
        metavar="NODE",
        help=f"id of a node; {CHECK} checks whether the run may push; {VERDICT} reports the verdicts of its gates",
    )
    parser.add_argument("--run-id", metavar="ID", help="id of the run: letters, digits and _ . : + -")
    parser.add_argument(push_order.OPTION, action="store_true", help=push_order.HELP)
    parser.add_argument("--list", action="store_true", help="print the nodes with their upstream nodes")
    parser.add_argument(
        "--json", action="store_true", help="with --list: print everything that a scheduler needs, as JSON"
    )


def run(args: argparse.Namespace) -> int:
    """Run the node; returns the exit code.

    Raises:
        ConfigError: an unknown node, an invalid run id, or an invalid knob.
        Refusal: a gate refused.
        BitsumError: the node failed.
    """
    config = configuration.load(args.config, args.set)
    if args.list:
        listed = _json(config, args) if args.json else _text(config)
        say(*listed.split("\n"))
        return 0
    if not args.node or not args.run_id or not _RUN_ID.fullmatch(args.run_id):
        raise ConfigError(
            f"--run-id = {args.run_id!r}, NODE = {args.node!r}: both are required; a run id has letters, digits and "
            "_ . : + - only"
        )
    root = workspace.prepare(config.root)
    log = root / "logs" / f"{args.run_id}.{pathlib.PurePath(args.node).name}.log"
    with (
        log_capture.redirect_output(log) as terminal,
        Progress(terminal, config.pipeline.progress_interval) as progress,
    ):
        try:
            relocation.lock_and_update_paths(config, progress.line)
            with root_lock.locked(config, f"bitsum node {args.node} of run {args.run_id}", progress.line, shared=True):
                _run(config, args.node, args.run_id, progress, args.allow_older)
        except BaseException:
            say(*traceback.format_exc().split("\n"), stream=sys.stderr)
            raise
    return 0


def _run(config: Config, node_id: str, run_id: str, progress: Progress, allow_older: bool) -> None:
    if node_id == CHECK:
        if not allow_older:
            push_order.check_span(config.push_to, config.data.span, config.data.span_date)
        return
    if node_id == VERDICT:
        log_capture.silence_database_drivers()
        from pipeline.records import verdicts

        verdicts.conclude(config, run_id, progress.line)
        return
    progress.begin("load libraries")
    from pipeline.runner import local

    progress.end("done")
    local.run(config, run_id, progress.begin, progress.end, node_id, allow_older)


def _graph(config: Config) -> dict[str, list[str]]:
    return nodes.in_series(bool(config.spans.request_log), config.train.warm_start)


def _text(config: Config) -> str:
    return "\n".join(f"{node}: {', '.join(before) or '-'}" for node, before in _graph(config).items())


def _json(config: Config, args: argparse.Namespace) -> str:
    """The graph, and all that a scheduler needs to run its nodes."""
    workspace.prepare(config.root)
    options = ["--config", str(pathlib.Path(args.config).resolve())] if args.config else []
    options += [word for override in args.set for word in ("--set", override)]
    plan: dict[str, Any] = {
        "pipeline": config.pipeline.name,
        "program": str(pathlib.Path(sys.executable).with_name("bitsum")),
        # The base of relative paths in knobs.
        "folder": str(pathlib.Path.cwd()),
        "options": options,
        "root": str(config.root),
        "schedule": dataclasses.asdict(config.schedule),
        "model_name": config.serve.model_name,
        "nodes": [{"id": node, "upstream": before} for node, before in _graph(config).items()],
    }
    return json.dumps(plan, indent=1)
