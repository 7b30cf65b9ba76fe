"""`bitsum relocate`: list the old paths of a moved or copied root in the metadata store, and rewrite them with --yes.

If the store is a SQLite file in the root, every other command rewrites them itself. A store that several roots may
share, such as PostgreSQL, is changed only here, through ML Metadata's own API, all artifacts and executions in one
transaction. This changes their update times, on which TFX's cache keys depend: afterwards only steps without inputs
come from the cache.
"""

import argparse
import os

from components.errors import BitsumError
from components.printable import say
from pipeline import config as configuration
from pipeline import log_capture, root_lock, workspace
from pipeline.config import Config
from pipeline.records import relocation

# Per kind.
_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum relocate`."""
    parser.add_argument(
        "--from", dest="before", metavar="DIR", help=f"the old path of the root (default: the one in {relocation.FILE})"
    )
    parser.add_argument("--yes", action="store_true", help="rewrite the listed entries; the default is to list only")


def run(args: argparse.Namespace) -> int:
    """List, or rewrite.

    Raises:
        BitsumError: the root or the store cannot be used, or a copy may share its store with the original.
    """
    config = configuration.load(args.config, args.set)
    if not (config.root / workspace.MARKER).exists():
        raise BitsumError(f"pipeline.root = {config.root} is not a bitsum folder")
    if not args.yes:
        _relocate(config, args)
        return 0
    with root_lock.locked(config, "bitsum relocate", say):
        _relocate(config, args)
    return 0


def _relocate(config: Config, args: argparse.Namespace) -> None:
    change = relocation.find_change(config)
    if args.before:
        recorded = change.root if change else relocation.read(config.root)
        change = relocation.Change(recorded, os.path.abspath(args.before), is_copy=bool(change and change.is_copy))
    if change is None or change.before in (None, str(config.root)):
        say(f"pipeline.root = {config.root} was not moved: nothing to rewrite")
        return
    log_capture.silence_database_drivers()
    from pipeline.records import metadata_store

    with metadata_store.existing(config) as store:
        changes = {
            "artifacts": _changed(store.get_artifacts(), change.before, config),
            "executions": _changed(store.get_executions(), change.before, config),
            "contexts": _changed(store.get_contexts(), change.before, config),
        }
        count = sum(map(len, changes.values()))
        if change.is_copy and count and not args.before:
            raise BitsumError(
                f"pipeline.root = {config.root} is a copy of {change.before}: if its metadata were copied too, use "
                f"--from {change.before}; if both share a store, set metadata.path or metadata.database to another one"
            )
        for kind, items in changes.items():
            _show(kind, items)
        if args.yes:
            store.put_contexts([item for item, _ in changes["contexts"]])
            lists = ([item for item, _ in changes[kind]] for kind in ("executions", "artifacts"))
            store.put_lineage_subgraph(*lists, contexts=[], event_edges=[])
            relocation.relocate_model_config(config, change.before)
            relocation.write(config.root, change)
    done = "now name" if args.yes else "would name"
    say(
        f"{count} entries {done} {config.root} in place of {change.before}{'' if args.yes else ': --yes rewrites them'}"
    )


def _changed(items: list, before: str, config: Config) -> list[tuple]:
    """The items that change, in their new state, each with its old values."""
    changes = [(item, relocation.relocate(item, before, str(config.root))) for item in items]
    return [(item, changed) for item, changed in changes if changed]


def _show(kind: str, items: list[tuple]) -> None:
    if not items:
        return
    say(f"{len(items)} {kind}")
    for item, changed in items[:_SHOWN]:
        say(f"  {item.id}: {', '.join(f'{name} {value}' for name, value in changed)}")
    if len(items) > _SHOWN:
        say(f"  and {len(items) - _SHOWN} more")
