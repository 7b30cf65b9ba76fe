"""`bitsum status`: what is pushed, whether its files are those of the push, and what the model server serves."""

import argparse
import pathlib

from components import version_folder
from components.errors import BitsumError
from components.transducer import ADDITION, TASKS
from pipeline import config as configuration
from pipeline.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bitsum status`."""
    parser.add_argument("--server", metavar="HOST:PORT", help="the model server to ask (default: serve.host and serve.port)")


def run(args: argparse.Namespace) -> int:
    """Print the status; 1 if a pushed version's files are not those of its manifest."""
    config = configuration.load(args.config, args.set)
    versions = version_folder.versions(config.push_to)
    damaged = [problem for version in versions for problem in _pushed(config, version)]
    if not versions:
        print(f"nothing is pushed in {config.push_to}: bitsum run pushes")
    for problem in damaged:
        print(f"DAMAGED: {problem}")
    print(_served(config, args.server or f"{config.serve.host}:{config.serve.port}"))
    return 1 if damaged else 0


def _pushed(config: Config, version: int) -> list[str]:
    folder = config.push_to / str(version)
    origin = version_folder.manifest(folder).get("origin", {})
    problems = version_folder.problems(folder)
    state = "DAMAGED" if problems else "files as pushed"
    print(f"version {version}: {state}, {_proven(folder, origin)}, run {origin.get('run', 'unknown')}, {folder}")
    return problems


def _proven(folder: pathlib.Path, origin: dict[str, str]) -> str:
    """What the checker says of the certificate, the weights and the graph that are there now."""
    from components import certificate, checker, graph_identity, saved_weights

    task = TASKS.get(origin.get("task", ""), ADDITION)
    try:
        text = (folder / certificate.FILE).read_text()
        verdict = checker.check(text, saved_weights.read(folder), task)
        graph = graph_identity.graph_sha256(folder)
    except (OSError, UnicodeDecodeError, BitsumError) as error:
        return f"NOT PROVEN ({getattr(error, 'strerror', None) or error})"
    if not verdict.proven:
        return f"NOT PROVEN ({verdict.reason})"
    if graph != origin.get("graph_sha256"):
        return "NOT PROVEN (its graph is not the one that was compared with the cell)"
    return f"{task.name} proven for any length, worst margin {verdict.margin:.4g}"


def _served(config: Config, target: str) -> str:
    from serving.client import AdderClient, ServingError
    from serving.deployment import LABELS, served

    try:
        with AdderClient(target, model_name=config.serve.model_name, deadline=config.serve.deadline, attempts=1) as client:
            states = client.status()
            labels = {label: served(target, config.serve.model_name, label, config.serve.deadline) for label in LABELS}
    except ServingError as error:
        return f"server {target}: {error}"
    carried = {state.version: [label for label, version in labels.items() if version == state.version] for state in states}
    told = [f"version {state.version} {' '.join([state.state, *carried[state.version]])}" for state in states]
    return f"server {target}: {', '.join(told)}"
