"""`bitsum gc`: list orphaned and old artifacts of a pipeline, and remove them with --delete.

Ancestors of a finally blessed model, or of a version that may be served, are never removed. Versions that may be served
are those in the push folder and those that the model config file names by version or label. The data of the last spans
(spans.window) stay too.
"""

import argparse
import pathlib
from typing import TYPE_CHECKING

from components import progress, results
from components.errors import BitsumError, ConfigError
from pipeline import config as configuration
from pipeline import log_capture, root_lock, workspace
from pipeline.config import Config
from pipeline.records import relocation

if TYPE_CHECKING:
    from pipeline.records.garbage import Collected

_MEGABYTE = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum gc`."""
    parser.add_argument("--delete", action="store_true", help="remove the listed folders; the default is to list only")
    parser.add_argument(
        "--keep", type=int, default=10, metavar="N", help="keep all outputs of the last N runs (default %(default)s)"
    )
    parser.add_argument(
        "--config_file",
        metavar="FILE",
        help="model config file of the server (default: models.config beside the push folder)",
    )
    parser.add_argument(
        "--gone",
        action="append",
        default=[],
        metavar="HOST",
        help="close the running executions of a host that no longer exists; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print the listed or removed folders as JSON")


def run(args: argparse.Namespace) -> int:
    """List, or remove.

    Raises:
        BitsumError: the store or the model config file cannot be used, or a folder cannot be removed.
    """
    if args.keep < 1:
        raise ConfigError(f"--keep = {args.keep}: must be at least 1, since a run may be between two steps")
    config = configuration.load(args.config, args.set)
    if not args.delete:
        relocation.lock_and_update_paths(config, progress.note)
        _collect(config, args)
        return 0
    if not (config.root / workspace.MARKER).exists():
        raise BitsumError(f"pipeline.root = {config.root} is not a bitsum folder: nothing was removed")
    # Before the lock: the run lock of a copy still names a run of the original.
    relocation.lock_and_update_paths(config, progress.note)
    with root_lock.locked(config, "bitsum gc --delete", progress.note):
        relocation.update_paths(config, progress.note)
        _collect(config, args)
    return 0


def _collect(config: Config, args: argparse.Namespace) -> None:
    log_capture.silence_database_drivers()
    from pipeline.records import garbage, metadata_store, ownership
    from pipeline.records.lineage_graph import LineageGraph

    folder = config.root / "artifacts"
    served = _served(config, args.config_file)
    with metadata_store.existing(config) as store:
        closed = ownership.close_abandoned(store, args.gone) if args.delete else []
        elsewhere = ownership.elsewhere(store)
        lineage = LineageGraph(store)
        folders = [
            *garbage.orphans(lineage, folder),
            *garbage.old(lineage, folder, args.keep, served, config.spans.window),
        ]
        if args.delete:
            garbage.remove(store, folders)
    size = sum(folder.size for folder in folders)
    results.show(garbage.Collected(args.delete, closed, elsewhere, folders, size), _lines, args.json)


def _lines(collected: "Collected") -> list[str]:
    result = "removed" if collected.deleted else "can be removed: --delete removes them"
    return [
        *[
            f"closed as failed: {closed.kind}, execution {closed.execution}: {closed.reason}"
            for closed in collected.closed
        ],
        *[
            f"{count} executions run on {host}, which is not visible from here; if it no longer exists: --gone {host}"
            for host, count in collected.elsewhere.items()
        ],
        *[f"{folder.size / _MEGABYTE:8.2f} MB  {folder.path}  {folder.reason}" for folder in collected.folders],
        f"{len(collected.folders)} folders, {collected.size / _MEGABYTE:.1f} MB {result}",
    ]


def _served(config: Config, config_file: str | None) -> set[int]:
    """The versions that may be served: in the push folder, and by version or label in the model config file."""
    from components.savedmodel import version_folder

    served = set(version_folder.versions(config.push_to))
    path = config.push_to.parent / "models.config" if config_file is None else pathlib.Path(config_file)
    if path.exists() or config_file is not None:
        from serving import model_config

        for model in model_config.read(path).model_config_list.config:
            served |= set(version_folder.versions(model_config.base_path(model)))
            served |= {*model.model_version_policy.specific.versions, *model.version_labels.values()}
    return served
