"""`bitsum run`: the whole job, from generated data to an answer over gRPC, with the verdicts of the gates."""

import argparse
import os
import pathlib
import random
import sys
import time
import traceback

from components.errors import BitsumError
from components.printable import say
from components.progress import Progress
from components.savedmodel import push_order
from pipeline import config as configuration
from pipeline import log_capture, root_lock, workspace
from pipeline.config import Config
from pipeline.records import relocation

# Pairs for the queries at the end. Long carry chains fail first.
_SHOWN = ((13, 29), (0, 0), (2**64 - 1, 1), (2**1000 - 1, 2**1000 - 1))
_RANDOM_BITS = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bitsum run`."""
    parser.add_argument(
        "--keep-serving", action="store_true", help="keep the model server running at the end, on serve.port"
    )
    parser.add_argument(push_order.OPTION, action="store_true", help=push_order.HELP)


def run(args: argparse.Namespace) -> int:
    """Run the pipeline, serve the pushed version, query it; 0 only if a blessed model answers correctly.

    Raises:
        Refusal: a gate refused, or, before any work, the newest version is for a later span.
        BitsumError: any other failure.
    """
    config = configuration.load(args.config, args.set)
    run_id = time.strftime("%Y%m%d-%H%M%S") + f"-{time.time_ns() % 10**9 // 1000:06d}"
    is_new = not (config.root / workspace.MARKER).exists()
    root = workspace.prepare(config.root)
    log = root / "logs" / f"{run_id}.log"
    with (
        log_capture.redirect_output(log) as terminal,
        Progress(terminal, config.pipeline.progress_interval) as progress,
    ):
        progress.line(f"bitsum run {run_id} in {root}{', a new folder' if is_new else ''}, log {log}")
        try:
            # Before the lock: the run lock of a copy still names a run of the original.
            relocation.lock_and_update_paths(config, progress.line)
            with root_lock.locked(config, f"bitsum run {run_id}", progress.line):
                relocation.update_paths(config, progress.line)
                if not args.allow_older:
                    push_order.check_span(config.push_to, config.data.span, config.data.span_date)
                _pipeline(config, run_id, progress, args.allow_older)
                _summary(config, run_id, log, progress, args.keep_serving)
        except BaseException:
            say(*traceback.format_exc().split("\n"), stream=sys.stderr)
            raise
    return 0


def _pipeline(config: Config, run_id: str, progress: Progress, allow_older: bool) -> None:
    progress.begin("load libraries")
    from pipeline.runner import local

    progress.end("done")
    local.run(config, run_id, progress.begin, progress.end, allow_older=allow_older)


def _summary(config: Config, run_id: str, log: pathlib.Path, progress: Progress, keep_serving: bool) -> None:
    from pipeline.records import verdicts

    push = verdicts.conclude(config, run_id, progress.line)
    _serve(config, push.version, log.with_suffix(".server.log"), progress, keep_serving)
    progress.line(f"artifacts {config.root / 'artifacts'}, log {log}")


def _serve(config: Config, version: int, log: pathlib.Path, progress: Progress, keep: bool) -> None:
    from components.steps import model_server

    port = config.serve.port if keep else 0
    command = [*config.infra.serve_command, f"--server={config.serve.server}", f"--host={config.serve.host}"]
    progress.begin("serve")
    server = model_server.start(
        command, config.serve.model_name, config.push_to, log, config.serve.start_timeout, port, outlives=keep
    )
    try:
        progress.end(f"{server.kind} server at {server.target}, version {server.version}")
        if server.version != version:
            raise BitsumError(f"the server serves version {server.version}, not the pushed {version}")
        _query(config, server.target, version, progress)
    except BaseException:
        model_server.stop(server.process)
        raise
    if keep:
        progress.line(f"still serving at {server.target}, stop it with: kill {server.process.pid}")
    else:
        model_server.stop(server.process)
        progress.line("server stopped; start it again with:")
        program = os.path.relpath(pathlib.Path(sys.executable).with_name("bitsum"))
        flags = f"--port={config.serve.port} --model_name={config.serve.model_name} --model_base_path={config.push_to}"
        progress.line(f"  {program} serve {flags}")


def _query(config: Config, target: str, version: int, progress: Progress) -> None:
    from components.task.addition import abbreviated
    from components.task.transducer import TASKS
    from serving.client import AdderClient

    task = TASKS[config.data.task]
    generator = random.Random(version)
    pairs = [*_SHOWN, (generator.getrandbits(_RANDOM_BITS), generator.getrandbits(_RANDOM_BITS))]
    progress.begin("query")
    with AdderClient(
        target, model_name=config.serve.model_name, version=version, deadline=config.serve.deadline
    ) as client:
        answers = client.apply(task, pairs)
    progress.end(f"{len(answers)} answers over gRPC")
    for (a, b), answer in zip(pairs, answers, strict=True):
        statement = task.statement(*map(abbreviated, (a, b, answer)))
        if answer != task.meaning(a, b):
            raise BitsumError(f"the served model answered {statement}, which is wrong")
        progress.line(f"    {statement}")
