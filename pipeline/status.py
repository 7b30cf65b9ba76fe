"""`bitsum status`: what is pushed, whether its files are those of the push, and what the model server serves."""

import argparse
import pathlib
from typing import TYPE_CHECKING

from components import version_folder
from components.errors import BitsumError
from components.printable import say
from components.transducer import ADDITION, TASKS
from pipeline import config as configuration
from pipeline.config import Config
from serving import target

if TYPE_CHECKING:
    import grpc


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bitsum status`."""
    parser.add_argument("--server", metavar="HOST:PORT", help="the model server to ask (default: serve.host and serve.port)")
    target.add_tls_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the status; 1 if a pushed version's files are not those of its manifest.

    Raises:
        ConfigError: a knob is wrong, or a file for TLS cannot be used.
    """
    config = configuration.load(args.config, args.set)
    credentials = target.credentials(args)
    versions = version_folder.versions(config.push_to)
    damaged = [problem for version in versions for problem in _pushed(config, version)]
    if not versions:
        say(f"nothing is pushed in {config.push_to}: bitsum run pushes")
    for problem in damaged:
        say(f"DAMAGED: {problem}")
    say(_served(config, args.server or f"{config.serve.host}:{config.serve.port}", credentials))
    return 1 if damaged else 0


def _pushed(config: Config, version: int) -> list[str]:
    folder = config.push_to / str(version)
    origin = version_folder.manifest(folder).get("origin", {})
    problems = version_folder.problems(folder)
    state = "DAMAGED" if problems else "files as pushed"
    say(f"version {version}: {state}, {_proven(folder, origin)}, run {origin.get('run', 'unknown')}, {folder}")
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


def _served(config: Config, server: str, credentials: "grpc.ChannelCredentials | None") -> str:
    from serving.client import AdderClient, ServingError
    from serving.deployment import LABELS, served

    name, options = config.serve.model_name, {"deadline": config.serve.deadline, "credentials": credentials}
    try:
        with AdderClient(server, name, attempts=1, **options) as client:
            states = client.status()
            labels = {label: served(server, name, label, **options) for label in LABELS}
    except ServingError as error:
        return f"server {server}: {error}"
    carried = {state.version: [label for label, version in labels.items() if version == state.version] for state in states}
    told = [f"version {state.version} {' '.join([state.state, *carried[state.version]])}" for state in states]
    return f"server {server}: {', '.join(told)}"
