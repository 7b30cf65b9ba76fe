"""`bitsum relocate`: show what the metadata store has of a root that was moved or copied under its old path, and with
--yes rewrite it.

With a SQLite file in the root every other command does this by itself. A store that several roots may have in common,
such as a PostgreSQL, is changed only here, through ML Metadata's own API: all artifacts and executions in one
transaction. That gives them a new time of their last change, by which TFX knows what a step was given: only steps
without inputs are taken from the cache afterwards.
"""

import argparse
import os

from components.errors import BitsumError
from components.printable import say
from pipeline import config as configuration
from pipeline import log_capture, root_lock, workspace
from pipeline.config import Config
from pipeline.records import relocation

# Of each kind so many are shown.
_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bitsum relocate`."""
    parser.add_argument(
        "--from", dest="before", metavar="DIR", help=f"the old path of the root (default: the one in {relocation.FILE})"
    )
    parser.add_argument("--yes", action="store_true", help="rewrite what is listed; without it nothing is changed")


def run(args: argparse.Namespace) -> int:
    """List, and perhaps rewrite.

    Raises:
        BitsumError: the root or the store cannot be used, or a copy may have its store in common with the original.
    """
    config = configuration.load(args.config, args.set)
    if not (config.root / workspace.MARKER).exists():
        raise BitsumError(f"pipeline.root = {config.root} is no folder of bitsum's")
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
        say(f"pipeline.root = {config.root} is where it was: nothing to rewrite")
        return
    log_capture.database()
    from pipeline.records import metadata_store

    with metadata_store.existing(config) as store:
        found = {
            "artifacts": _changed(store.get_artifacts(), change.before, config),
            "executions": _changed(store.get_executions(), change.before, config),
            "contexts": _changed(store.get_contexts(), change.before, config),
        }
        count = sum(map(len, found.values()))
        if change.is_copy and count and not args.before:
            raise BitsumError(
                f"pipeline.root = {config.root} is a copy of {change.before}: if its metadata are not in the same store, but copied as "
                f"well, say --from {change.before}; otherwise set metadata.path or metadata.database to a store of its own"
            )
        for kind, items in found.items():
            _show(kind, items)
        if args.yes:
            store.put_contexts([item for item, _ in found["contexts"]])
            lists = ([item for item, _ in found[kind]] for kind in ("executions", "artifacts"))
            store.put_lineage_subgraph(*lists, contexts=[], event_edges=[])
            relocation.relocate_model_config(config, change.before)
            relocation.write(config.root, change)
    done = "now name" if args.yes else "would name"
    say(
        f"{count} entries {done} {config.root} in place of {change.before}{'' if args.yes else ': --yes rewrites them'}"
    )


def _changed(items: list, before: str, config: Config) -> list[tuple]:
    """Those that change, as they are afterwards, each with what stood there before."""
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
