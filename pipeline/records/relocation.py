"""Where a root is, and where it was: a root that was moved or copied gets metadata that name the files where they are
now.

The metadata store holds absolute paths. `root.json` in the root holds an id, the path at which the root was used last,
and those before it. Where it lies somewhere else now, it was moved if nothing with its id is at that path any more, and
copied otherwise. A copy gets an id of its own. Until root.json says so, nothing is settled: who is killed in between
does the same again.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from components import atomic, progress, regular_files
from components.errors import BitsumError
from pipeline import root_lock
from pipeline.workspace import MARKER

if TYPE_CHECKING:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    from pipeline.config import Config

FILE = "root.json"
# How long a node waits for another one that settles the same root.
_LOCK_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 0.1
_SQLITE_SECONDS = 10.0
# ML Metadata's tables, and the columns of them that hold paths.
_COLUMNS = (
    ("Artifact", "uri"),
    ("ArtifactProperty", "string_value"),
    ("ExecutionProperty", "string_value"),
    ("ContextProperty", "string_value"),
)
_BELOW = "({0} = :{1} OR substr({0}, 1, length(:{1}) + 1) = :{1} || '/')"
# Where a run puts an artifact: <root>/artifacts/<node>/<key>/<execution>.
_ARTIFACT = re.compile(r"(?P<root>/.+)/artifacts/[^/]+/[^/]+/\d+")


@dataclasses.dataclass(frozen=True)
class Root:
    """What root.json holds: the root's id, its path, and the paths at which it was before, the last one first."""

    id: str
    path: str
    former: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Change:
    """What has happened to a root since it was used last.

    before: the path at which it was then; None for a root that is new, or has no root.json and lies where its metadata
    say. is_copy: something with its id is still there.
    """

    root: Root | None
    before: str | None
    is_copy: bool = False


def settle(config: "Config", tell: Callable[[str], None]) -> None:
    """See to it that the metadata of the root name this root; whoever calls this holds it alone. `tell` gets a line
    where it changed.

    Raises:
        BitsumError: they cannot be rewritten from here; nothing is changed.
    """
    change = find_change(config)
    if change is None:
        return
    if change.before:
        _rewrite(config, change)
    write(config.root, change)
    if change.is_copy:
        root_lock.forget(config.root)
    if change.before:
        word = "is a copy of" if change.is_copy else "was moved here from"
        tell(f"pipeline.root = {config.root} {word} {change.before}: its metadata name the files here from now on")


def settle_alone(config: "Config", tell: Callable[[str], None]) -> None:
    """As `settle`, for those who do not hold the root: where something has changed, it is held for as long as that
    takes.

    Raises:
        BitsumError: as in `settle`; or the root was moved, and somebody else works in it.
    """
    if not (config.root / MARKER).exists() or (change := find_change(config)) is None:
        return
    try:
        with _alone(config.root, _LOCK_SECONDS if change.before else 0.0):
            settle(config, tell)
    except (OSError, BitsumError) as error:
        # A root that lies where it did can be used without root.json.
        if not change.before:
            return
        if isinstance(error, BitsumError):
            raise
        problem = "another program works in it" if isinstance(error, BlockingIOError) else error.strerror
        raise BitsumError(
            f"pipeline.root = {config.root} was at {change.before} before, which its metadata still name, and they cannot be rewritten "
            f"now: {problem}; try again later"
        ) from error


def tell_aside(line: str) -> None:
    """Write a line to standard error, for commands whose output may be read by a program."""
    progress.note(line)


def find_change(config: "Config") -> Change | None:
    """What has happened to the root since it was used last; None if it is where it was, under this path or another.

    Raises:
        BitsumError: root.json cannot be read, or the path in it cannot be looked at.
    """
    recorded = read(config.root)
    try:
        before = recorded.path if recorded else _path_in_metadata(config)
        if before == str(config.root):
            # Metadata that were put back from before the root was moved, or from its original.
            before = _former_path_in_metadata(config, recorded) or before
    except sqlite3.Error:
        # Whoever opens the store tells what is wrong with it.
        return None
    if before in (None, str(config.root)):
        return None if recorded else Change(None, None)
    try:
        there = os.stat(before)
    except (FileNotFoundError, NotADirectoryError):
        return Change(recorded, before)
    except OSError as error:
        raise BitsumError(
            f"pipeline.root = {config.root} was at {before} before, and whether it was moved or copied cannot be seen: {error.strerror}"
        ) from error
    if os.path.samestat(there, os.stat(config.root)):
        return None if recorded else Change(None, None)
    is_former = recorded is not None and before in recorded.former
    return Change(recorded, before, is_copy=is_former or _is_original(pathlib.Path(before), recorded))


def read(root: pathlib.Path) -> Root | None:
    """What root.json of a root holds; None where there is none. Raises: BitsumError, it cannot be read."""
    path = root / FILE
    try:
        content = regular_files.read_json(path)
        found = Root(content["id"], content["path"], tuple(content["former"]))
        if not isinstance(found.id, str) or not all(
            isinstance(place, str) and _is_folder(place) for place in (found.path, *found.former)
        ):
            raise ValueError("not an id and absolute paths")
        return found
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BitsumError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise BitsumError(f"{path} is damaged: remove it; the next run writes it again") from error


def write(root: pathlib.Path, change: Change) -> None:
    """Write root.json, as it is after `change`. Raises: BitsumError, it cannot be written."""
    keeps_id = change.root and not change.is_copy
    former = [path for path in (change.before, *(change.root.former if change.root else ())) if path]
    now = Root(change.root.id if keeps_id else uuid.uuid4().hex, str(root), tuple(dict.fromkeys(former)))
    try:
        atomic.write(root / FILE, json.dumps(dataclasses.asdict(now), indent=1) + "\n")
    except OSError as error:
        raise BitsumError(f"cannot write {root / FILE}: {error.strerror}") from error


def former_paths(root: pathlib.Path) -> tuple[str, ...]:
    """The paths at which the root was before, the last one first."""
    recorded = read(root)
    return recorded.former if recorded else ()


def moved(value: Any, before: str, now: str) -> Any:
    """`value`, or, if it is the path `before` or one below it, the same below `now`.

    Where `now` is below `before` itself, what is there already stays: so doing it twice is doing it once.

    >>> moved("/a/root/x", "/a/root", "/b"), moved("/a/root2/x", "/a/root", "/b")
    ('/b/x', '/a/root2/x')
    """
    if not isinstance(value, str) or not _is_below(value, before) or (_is_below(now, before) and _is_below(value, now)):
        return value
    return now + value[len(before) :]


def relocate(item: "mlmd.Artifact | mlmd.Execution | mlmd.Context", before: str, now: str) -> list[tuple[str, str]]:
    """Put `now` in the place of `before` in what the metadata store knows of `item`; (name, old value) of all that
    changed."""
    changed = []
    uri = moved(getattr(item, "uri", ""), before, now)
    if uri != getattr(item, "uri", ""):
        changed.append(("uri", item.uri))
        item.uri = uri
    for properties in (item.properties, item.custom_properties):
        for name, value in properties.items():
            text = moved(value.string_value, before, now)
            if text != value.string_value:
                changed.append((name, value.string_value))
                value.string_value = text
    return changed


def relocate_model_config(config: "Config", before: str) -> None:
    """Put the root in the place of `before` in the base paths of the model config file beside the push folder, if it is
    in the root.

    Raises:
        BitsumError: it cannot be read or written.
    """
    path = config.push_to.parent / "models.config"
    if config.root not in path.parents or not path.is_file():
        return
    from google.protobuf import text_encoding

    try:
        old = path.read_text()
        now = text_encoding.CEscape(str(config.root).encode(), False)
        # Text format has two ways to write a letter beyond ASCII.
        names = "|".join(
            map(re.escape, (text_encoding.CEscape(before.encode(), False), text_encoding.CEscape(before, True)))
        )
        new = re.sub(rf"""(["'](?:file://)?)(?:{names})(?=[/"'])""", lambda found: found[1] + now, old)
        if new != old:
            atomic.write(path, new)
    except (OSError, UnicodeDecodeError) as error:
        raise BitsumError(
            f"cannot rewrite {path}, which names {before}: {getattr(error, 'strerror', error)}"
        ) from error


def rewrite_sqlite(path: pathlib.Path, before: str, now: str) -> int:
    """Put `now` in the place of `before` in a SQLite file of ML Metadata's, in one transaction; how many values
    changed.

    Raises:
        BitsumError: it cannot be written; nothing is changed.
    """
    changed = 0
    try:
        with contextlib.closing(_open(path, _SQLITE_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
            for table, column in _columns(database):
                where = f"{_BELOW.format(column, 'before')} AND NOT ({_BELOW.format(':now', 'before')} AND {_BELOW.format(column, 'now')})"
                update = f"UPDATE {table} SET {column} = :now || substr({column}, length(:before) + 1) WHERE {where}"
                changed += database.execute(update, {"before": before, "now": now}).rowcount
            database.execute("COMMIT")
    except sqlite3.Error as error:
        raise BitsumError(
            f"cannot put {now} in the place of {before} in {path}: {error}; nothing was changed"
        ) from error
    return changed


def _rewrite(config: "Config", change: Change) -> None:
    from pipeline.records import metadata_store

    name = (
        f"pipeline.root = {config.root} {'is a copy of' if change.is_copy else 'was moved here from'} {change.before}"
    )
    if config.metadata.backend != "sqlite":
        raise BitsumError(
            f"{name}, which the metadata in {config.metadata.backend} still name: bitsum relocate shows what to do"
        )
    file = metadata_store.sqlite_file(config)
    if file.exists():
        if change.is_copy and config.root not in file.parents and _names(file, change.before):
            raise BitsumError(
                f"{name} and has its metadata in common with it, in {file}: bitsum relocate shows what to do"
            )
        rewrite_sqlite(file, change.before, str(config.root))
    relocate_model_config(config, change.before)


def _is_original(other: pathlib.Path, recorded: Root | None) -> bool:
    """Whether `other` is the root that this one was copied from, and not just something that lies where this one
    was."""
    if recorded is None:
        return (other / MARKER).exists()
    try:
        found = read(other)
    except BitsumError:
        return False
    return found is not None and found.id == recorded.id


def _path_in_metadata(config: "Config") -> str | None:
    """The root that the newest artifact was put below, for a root without root.json; None where no store of its own
    says so."""
    path = config.root / "metadata.sqlite"
    if config.metadata.backend != "sqlite" or config.metadata.path or not path.exists():
        return None
    with contextlib.closing(_open(path, 0.0)) as database:
        if ("Artifact", "uri") not in _columns(database):
            return None
        newest = database.execute("SELECT uri FROM Artifact ORDER BY id DESC LIMIT 1").fetchone()
    found = _ARTIFACT.fullmatch(newest[0] or "") if newest else None
    return found["root"] if found else None


def _former_path_in_metadata(config: "Config", recorded: Root | None) -> str | None:
    """A path at which the root was before, and that its own store still names; None where none does."""
    path = config.root / "metadata.sqlite"
    if recorded is None or config.metadata.backend != "sqlite" or config.metadata.path or not path.exists():
        return None
    return next(
        (place for place in recorded.former if place != recorded.path and _holds(path, place, "Artifact", "uri")), None
    )


def _holds(path: pathlib.Path, root: str, table: str, column: str) -> bool:
    """Whether a column of a SQLite file of ML Metadata's has anything below `root`."""
    with contextlib.closing(_open(path, 0.0)) as database:
        if (table, column) not in _columns(database):
            return False
        query = f"SELECT 1 FROM {table} WHERE {_BELOW.format(column, 'root')} LIMIT 1"
        return database.execute(query, {"root": root}).fetchone() is not None


def _is_folder(path: str) -> bool:
    """Whether a root can have been there: an absolute path, and not the top of everything."""
    return path.startswith("/") and path.strip("/") != ""


def _names(path: pathlib.Path, root: str) -> bool:
    """Whether anything in a SQLite file of ML Metadata's is below `root`."""
    try:
        return any(_holds(path, root, table, column) for table, column in _COLUMNS)
    except sqlite3.Error as error:
        raise BitsumError(f"cannot use the metadata store {path}: {error}") from error


def _open(path: pathlib.Path, timeout: float) -> sqlite3.Connection:
    # For writing, since a journal that a killed program left can only be played back so.
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None)


def _columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """Those of ML Metadata's columns with paths that are there: a new file has none."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return [(table, column) for table, column in _COLUMNS if table in tables]


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


@contextlib.contextmanager
def _alone(root: pathlib.Path, seconds: float) -> Iterator[None]:
    """Hold the root alone. A scheduled run that has the turn is no hindrance: this may be a node of it."""
    end = time.monotonic() + seconds
    with open(root / MARKER, "r+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
                time.sleep(_ASK_AGAIN_SECONDS)
        yield
