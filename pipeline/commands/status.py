"""`bitsum status`: the pushed versions, whether their files are intact, and the versions on the model server."""

import argparse
import dataclasses
import pathlib
from typing import TYPE_CHECKING

from components import progress, results
from components.errors import BitsumError
from components.savedmodel import version_folder
from pipeline import config as configuration
from pipeline.config import Config
from pipeline.records import relocation
from serving.commands import connection_flags
from serving.server.options import address

if TYPE_CHECKING:
    from serving.tls import ClientTls


@dataclasses.dataclass(frozen=True)
class PushedVersion:
    """A version in the push folder; `damage`: problems with its files, `not_proven`: why no certificate is valid,
    `unreadable`: why it cannot be read, and so nothing else is known."""

    version: int
    path: pathlib.Path
    damage: list[str]
    ignored_files: list[str]
    task: str
    margin: float | None
    not_proven: str
    run: str
    unreadable: str = ""


@dataclasses.dataclass(frozen=True)
class ServedVersion:
    """A version on the model server."""

    version: int
    state: str
    labels: list[str]


@dataclasses.dataclass(frozen=True)
class Server:
    """The model server; `error` is why it did not answer."""

    target: str
    versions: list[ServedVersion]
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Status:
    """The pushed and the served versions."""

    push_to: pathlib.Path
    pushed: list[PushedVersion]
    server: Server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bitsum status`."""
    parser.add_argument(
        "--server", metavar="HOST:PORT", help="model server to query (default: serve.host and serve.port)"
    )
    parser.add_argument("--json", action="store_true", help="print the status as JSON")
    connection_flags.add_tls_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the status; 1 if a pushed version is damaged or unreadable, or no server answers.

    Raises:
        ConfigError: a knob is invalid, or a TLS file cannot be used.
        BitsumError: the folder of the pushed versions cannot be read.
    """
    config = configuration.load(args.config, args.set)
    credentials = connection_flags.credentials(args)
    relocation.lock_and_update_paths(config, progress.note)
    pushed = [_pushed(config.push_to, version) for version in version_folder.versions(config.push_to)]
    server = _server(config, args.server or address(config.serve.host, config.serve.port), credentials)
    results.show(Status(config.push_to, pushed, server), _lines, args.json)
    return 1 if server.error or any(version.damage or version.unreadable for version in pushed) else 0


def _pushed(push_to: pathlib.Path, version: int) -> PushedVersion:
    from serving.rollout import provenance

    folder = push_to / str(version)
    try:
        origin = provenance.of(folder)
        damage = list(origin.damage) or ([] if version_folder.manifest(folder) else version_folder.problems(folder))
    except BitsumError as error:
        return PushedVersion(version, folder, [], [], "", None, "it cannot be read", "", unreadable=str(error))
    not_proven = (origin.unblessed or "").removeprefix(provenance.UNPROVEN) if origin.margin is None else ""
    return PushedVersion(
        version, folder, damage, list(origin.ignored), origin.task.name, origin.margin, not_proven, origin.run
    )


def _server(config: Config, server: str, credentials: "ClientTls | None") -> Server:
    from serving.client import AdderClient, ServingError
    from serving.labels import LABELS
    from serving.rollout.deployment import served

    name, deadline = config.serve.model_name, config.serve.deadline
    try:
        with AdderClient(server, name, attempts=1, deadline=deadline, credentials=credentials) as client:
            states = client.status()
            labels = {label: served(server, name, label, deadline, credentials=credentials) for label in LABELS}
    except ServingError as error:
        return Server(server, [], str(error))
    return Server(
        server,
        [
            ServedVersion(
                state.version, state.state, [label for label, version in labels.items() if version == state.version]
            )
            for state in states
        ],
    )


def _lines(status: Status) -> list[str]:
    served = [
        f"version {served.version} {' '.join([served.state, *served.labels])}" for served in status.server.versions
    ]
    return [
        *([] if status.pushed else [f"{status.push_to} has no pushed version: bitsum run pushes one"]),
        *map(_line, status.pushed),
        *[f"DAMAGED: {problem}" for version in status.pushed for problem in version.damage],
        *[f"UNREADABLE: {version.unreadable}" for version in status.pushed if version.unreadable],
        f"server {status.server.target}: {status.server.error or ', '.join(served)}",
    ]


def _line(pushed: PushedVersion) -> str:
    if pushed.unreadable:
        return f"version {pushed.version}: UNREADABLE, {pushed.path}"
    state = "DAMAGED" if pushed.damage else "files as pushed"
    ignored = f", ignored: {', '.join(pushed.ignored_files)}" if pushed.ignored_files else ""
    if pushed.margin is None:
        proven = f"NOT PROVEN ({pushed.not_proven})"
    else:
        proven = f"{pushed.task} proven for any length, worst margin {pushed.margin:.4g}"
    return f"version {pushed.version}: {state}{ignored}, {proven}, run {pushed.run or 'unknown'}, {pushed.path}"
