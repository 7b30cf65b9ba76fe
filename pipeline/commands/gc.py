"""`bitsum gc`: show what is orphaned or old among the artifacts of a pipeline, and remove it with --delete.

Nothing is removed that a finally blessed model, or a version that may be served, descends from. May be served: what
lies in the push folder, and what the model config file names by version or label. The data of the last spans
(spans.window) stay, too.
"""

import argparse
import pathlib
from typing import TYPE_CHECKING

from components import results
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
    parser.add_argument("--delete", action="store_true", help="remove what is listed; without it nothing is changed")
    parser.add_argument(
        "--keep", type=int, default=10, metavar="N", help="keep all that the last N runs put out (default %(default)s)"
    )
    parser.add_argument(
        "--config_file",
        metavar="FILE",
        help="model config file that says what is served (default: models.config beside the push folder)",
    )
    parser.add_argument(
        "--gone",
        action="append",
        default=[],
        metavar="HOST",
        help="this host is no more: close what it left running, which cannot be seen from here; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print what can go, or went, as JSON")


def run(args: argparse.Namespace) -> int:
    """List, and perhaps remove.

    Raises:
        BitsumError: the store or the model config file cannot be used, or a folder cannot be removed.
    """
    if args.keep < 1:
        raise ConfigError(f"--keep = {args.keep}: must be at least 1, since a run may be between two of its steps")
    config = configuration.load(args.config, args.set)
    if not args.delete:
        relocation.settle_alone(config, relocation.tell_aside)
        _collect(config, args)
        return 0
    if not (config.root / workspace.MARKER).exists():
        raise BitsumError(f"pipeline.root = {config.root} is no folder of bitsum's: nothing was removed")
    # First, since the lock of a copy still names the run that works in the original.
    relocation.settle_alone(config, relocation.tell_aside)
    with root_lock.locked(config, "bitsum gc --delete", relocation.tell_aside):
        relocation.settle(config, relocation.tell_aside)
        _collect(config, args)
    return 0


def _collect(config: Config, args: argparse.Namespace) -> None:
    log_capture.database()
    from pipeline.records import garbage, metadata_store, ownership
    from pipeline.records.lineage_graph import LineageGraph

    folder = config.root / "artifacts"
    served = _served(config, args.config_file)
    with metadata_store.existing(config) as store:
        closed = ownership.close_abandoned(store, args.gone) if args.delete else []
        elsewhere = ownership.elsewhere(store)
        lineage = LineageGraph(store)
        found = [
            *garbage.orphans(lineage, folder),
            *garbage.old(lineage, folder, args.keep, served, config.spans.window),
        ]
        if args.delete:
            garbage.remove(store, found)
    size = sum(one.size for one in found)
    results.show(garbage.Collected(args.delete, closed, elsewhere, found, size), _lines, args.json)


def _lines(collected: "Collected") -> list[str]:
    done = "removed" if collected.deleted else "can go: --delete removes them"
    return [
        *[f"closed as failed: {one.kind}, execution {one.execution}: {one.reason}" for one in collected.closed],
        *[
            f"{count} executions run on {host}, which cannot be looked into from here; if it is no more: --gone {host}"
            for host, count in collected.elsewhere.items()
        ],
        *[f"{one.size / _MEGABYTE:8.2f} MB  {one.path}  {one.reason}" for one in collected.folders],
        f"{len(collected.folders)} folders, {collected.size / _MEGABYTE:.1f} MB {done}",
    ]


def _served(config: Config, config_file: str | None) -> set[int]:
    """The versions that may be served: on disk, and by version or label in the model config file, where there is
    one."""
    from components.savedmodel import version_folder

    served = set(version_folder.versions(config.push_to))
    path = pathlib.Path(config_file) if config_file else config.push_to.parent / "models.config"
    if path.exists() or config_file:
        from serving import model_config

        for model in model_config.read(path).model_config_list.config:
            served |= set(version_folder.versions(model_config.base_path(model)))
            served |= {*model.model_version_policy.specific.versions, *model.version_labels.values()}
    return served
