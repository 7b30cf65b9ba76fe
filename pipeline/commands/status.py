"""`bitsum status`: what is pushed, whether its files are those of the push, and what the model server serves."""

import argparse
import pathlib
from typing import TYPE_CHECKING

from components.printable import say
from components.savedmodel import version_folder
from pipeline import config as configuration
from pipeline.config import Config
from pipeline.records import relocation
from serving.commands import connection_flags

if TYPE_CHECKING:
    import grpc


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bitsum status`."""
    parser.add_argument(
        "--server", metavar="HOST:PORT", help="the model server to ask (default: serve.host and serve.port)"
    )
    connection_flags.add_tls_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the status; 1 if a pushed version's files are not those of its manifest.

    Raises:
        ConfigError: a knob is wrong, or a file for TLS cannot be used.
    """
    config = configuration.load(args.config, args.set)
    credentials = connection_flags.credentials(args)
    relocation.settle_alone(config, relocation.tell_aside)
    versions = version_folder.versions(config.push_to)
    damaged = [problem for version in versions for problem in _pushed(config.push_to / str(version))]
    if not versions:
        say(f"nothing is pushed in {config.push_to}: bitsum run pushes")
    for problem in damaged:
        say(f"DAMAGED: {problem}")
    say(_served(config, args.server or f"{config.serve.host}:{config.serve.port}", credentials))
    return 1 if damaged else 0


def _pushed(folder: pathlib.Path) -> list[str]:
    from serving.rollout import provenance

    found = provenance.of(folder)
    damage = list(found.damage) or ([] if version_folder.manifest(folder) else version_folder.problems(folder))
    state = "DAMAGED" if damage else "files as pushed"
    ignored = f", ignored: {', '.join(found.ignored)}" if found.ignored else ""
    if found.margin is None:
        proven = f"NOT PROVEN ({found.unblessed.removeprefix(provenance.UNPROVEN)})"
    else:
        proven = f"{found.task.name} proven for any length, worst margin {found.margin:.4g}"
    say(f"version {folder.name}: {state}{ignored}, {proven}, run {found.run or 'unknown'}, {folder}")
    return damage


def _served(config: Config, server: str, credentials: "grpc.ChannelCredentials | None") -> str:
    from serving.client import AdderClient, ServingError
    from serving.rollout.deployment import LABELS, served

    name, options = config.serve.model_name, {"deadline": config.serve.deadline, "credentials": credentials}
    try:
        with AdderClient(server, name, attempts=1, **options) as client:
            states = client.status()
            labels = {label: served(server, name, label, **options) for label in LABELS}
    except ServingError as error:
        return f"server {server}: {error}"
    carried = {
        state.version: [label for label, version in labels.items() if version == state.version] for state in states
    }
    told = [f"version {state.version} {' '.join([state.state, *carried[state.version]])}" for state in states]
    return f"server {server}: {', '.join(told)}"
