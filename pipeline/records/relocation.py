"""Keeps the paths in the metadata right when a root is moved or copied.

The metadata store holds absolute paths. `root.json` in the root holds an id, the path at which the root was last used,
and earlier paths. If the root is elsewhere now, it was copied if a root with its id still exists at that path, and
moved otherwise. A copy gets a new id. root.json is written last: an update that is killed is repeated.
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

from components import atomic, regular_files
from components.errors import BitsumError
from pipeline import root_lock
from pipeline.workspace import MARKER

if TYPE_CHECKING:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    from pipeline.config import Config

FILE = "root.json"
# How long a node waits for another that updates the same root.
_LOCK_SECONDS = 10.0
_POLL_SECONDS = 0.1
_SQLITE_SECONDS = 10.0
# ML Metadata's tables and columns that hold paths.
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
    """The content of root.json: the root's id, its path, and its earlier paths, the last one first."""

    id: str
    path: str
    former: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Change:
    """How a root changed since it was last used.

    root: the content of root.json, if it exists. before: the previous path; None if only root.json is missing. is_copy:
    the root at the previous path still exists.
    """

    root: Root | None
    before: str | None
    is_copy: bool = False

    def __str__(self) -> str:
        return f"{'is a copy of' if self.is_copy else 'was moved here from'} {self.before}"


def update_paths(config: "Config", on_change: Callable[[str], None]) -> None:
    """Update the metadata if the root, which the caller has locked, was moved or copied. `on_change` gets a line if so.

    Raises:
        BitsumError: the metadata cannot be rewritten from here; nothing is changed.
    """
    change = find_change(config)
    if change is None:
        return
    if change.before:
        _rewrite(config, change, change.before)
    write(config.root, change)
    if change.is_copy:
        root_lock.forget(config.root)
    if change.before:
        on_change(f"pipeline.root = {config.root} {change}: its metadata now name the files here")


def lock_and_update_paths(config: "Config", on_change: Callable[[str], None]) -> None:
    """As `update_paths`, for callers without the lock; the root is locked for the update only.

    Raises:
        BitsumError: as in `update_paths`; or the root was moved, and another program works in it.
    """
    if not (config.root / MARKER).exists() or (change := find_change(config)) is None:
        return
    try:
        with _exclusive(config.root, _LOCK_SECONDS if change.before else 0.0):
            update_paths(config, on_change)
    except (OSError, BitsumError) as error:
        # An unmoved root can be used without root.json.
        if not change.before:
            return
        if isinstance(error, BitsumError):
            raise
        problem = "another program works in it" if isinstance(error, BlockingIOError) else error.strerror
        raise BitsumError(
            f"pipeline.root = {config.root} was at {change.before} before, which its metadata still name, and they "
            f"cannot be rewritten now: {problem}; try again later"
        ) from error


def find_change(config: "Config") -> Change | None:
    """How the root changed since it was last used; None if it was not moved, even if this path to it is new.

    Raises:
        BitsumError: root.json, or the path in it, cannot be read.
    """
    recorded = read(config.root)
    try:
        before = recorded.path if recorded else _path_in_metadata(config)
        if before == str(config.root):
            # The metadata may have been restored from before a move, or from the original.
            before = _former_path_in_metadata(config, recorded) or before
    except sqlite3.Error:
        # Opening the store reports the problem.
        return None
    if before in (None, str(config.root)):
        return None if recorded else Change(None, None)
    try:
        there = os.stat(before)
    except (FileNotFoundError, NotADirectoryError):
        return Change(recorded, before)
    except OSError as error:
        raise BitsumError(
            f"pipeline.root = {config.root} was at {before} before; cannot tell whether it was moved or copied: "
            f"{error.strerror}"
        ) from error
    if os.path.samestat(there, os.stat(config.root)):
        return None if recorded else Change(None, None)
    is_former = recorded is not None and before in recorded.former
    return Change(recorded, before, is_copy=is_former or _is_original(pathlib.Path(before), recorded))


def read(root: pathlib.Path) -> Root | None:
    """The content of root.json; None if the file is missing. Raises: BitsumError: it cannot be read."""
    path = root / FILE
    try:
        content: Any = regular_files.read_json(path)
        recorded = Root(content["id"], content["path"], tuple(content["former"]))
        if not isinstance(recorded.id, str) or not all(
            isinstance(place, str) and _is_folder(place) for place in (recorded.path, *recorded.former)
        ):
            raise ValueError("not an id and absolute paths")
        return recorded
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BitsumError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise BitsumError(f"{path} is damaged: remove it; the next run writes it again") from error


def write(root: pathlib.Path, change: Change) -> None:
    """Write root.json as it is after `change`. Raises: BitsumError: it cannot be written."""
    id = change.root.id if change.root and not change.is_copy else uuid.uuid4().hex
    former = [path for path in (change.before, *(change.root.former if change.root else ())) if path]
    now = Root(id, str(root), tuple(dict.fromkeys(former)))
    try:
        atomic.write(root / FILE, json.dumps(dataclasses.asdict(now), indent=1) + "\n")
    except OSError as error:
        raise BitsumError(f"cannot write {root / FILE}: {error.strerror}") from error


def former_paths(root: pathlib.Path) -> tuple[str, ...]:
    """The earlier paths of the root, the last one first."""
    recorded = read(root)
    return recorded.former if recorded else ()


def moved(value: Any, before: str, now: str) -> Any:
    """`value` with the path prefix `before` replaced by `now`; any other value is unchanged.

    If `now` is below `before`, paths below `now` are unchanged too, so that the function is idempotent.

    >>> moved("/a/root/x", "/a/root", "/b"), moved("/a/root2/x", "/a/root", "/b")
    ('/b/x', '/a/root2/x')
    """
    if not isinstance(value, str) or not _is_below(value, before) or (_is_below(now, before) and _is_below(value, now)):
        return value
    return now + value[len(before) :]


def relocate(item: "mlmd.Artifact | mlmd.Execution | mlmd.Context", before: str, now: str) -> list[tuple[str, str]]:
    """Replace the path `before` by `now` in the fields of `item`; (name, old value) of each change."""
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
    """Replace `before` by the root in the base paths of the model config file beside the push folder, if it is in the
    root.

    Raises:
        BitsumError: the file cannot be read or written.
    """
    path = config.push_to.parent / "models.config"
    if config.root not in path.parents or not path.is_file():
        return
    from google.protobuf import text_encoding  # type: ignore[attr-defined]  # types-protobuf lacks the module

    try:
        old = regular_files.read(path).decode()
        now = text_encoding.CEscape(str(config.root).encode(), False)
        # Text format writes a non-ASCII letter in one of two ways.
        names = "|".join(
            map(re.escape, (text_encoding.CEscape(before.encode(), False), text_encoding.CEscape(before, True)))
        )
        new = re.sub(rf"""(["'](?:file://)?)(?:{names})(?=[/"'])""", lambda match: match[1] + now, old)
        if new != old:
            atomic.write(path, new)
    except (OSError, UnicodeDecodeError) as error:
        raise BitsumError(
            f"cannot rewrite {path}, which names {before}: {getattr(error, 'strerror', error)}"
        ) from error


def rewrite_sqlite(path: pathlib.Path, before: str, now: str) -> int:
    """Replace the path `before` by `now` in an ML Metadata SQLite file, atomically; the number of changed values.

    Raises:
        BitsumError: the file cannot be written; nothing is changed.
    """
    changed = 0
    try:
        with contextlib.closing(_open(path, _SQLITE_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
            for table, column in _columns(database):
                below_before, below_now = _BELOW.format(column, "before"), _BELOW.format(column, "now")
                where = f"{below_before} AND NOT ({_BELOW.format(':now', 'before')} AND {below_now})"
                update = f"UPDATE {table} SET {column} = :now || substr({column}, length(:before) + 1) WHERE {where}"
                changed += database.execute(update, {"before": before, "now": now}).rowcount
            database.execute("COMMIT")
    except sqlite3.Error as error:
        raise BitsumError(f"cannot replace {before} by {now} in {path}: {error}; nothing was changed") from error
    return changed


def _rewrite(config: "Config", change: Change, before: str) -> None:
    from pipeline.records import metadata_store

    problem = f"pipeline.root = {config.root} {change}"
    if config.metadata.backend != "sqlite":
        raise BitsumError(
            f"{problem}, which the metadata in {config.metadata.backend} still name: bitsum relocate shows what to do"
        )
    file = metadata_store.sqlite_file(config)
    if file.exists():
        if change.is_copy and config.root not in file.parents and _names(file, before):
            raise BitsumError(f"{problem}, and both use the metadata in {file}: bitsum relocate shows what to do")
        rewrite_sqlite(file, before, str(config.root))
    relocate_model_config(config, before)


def _is_original(other: pathlib.Path, recorded: Root | None) -> bool:
    """Whether `other` is the root that this one was copied from, not something else at its previous path."""
    if recorded is None:
        return (other / MARKER).exists()
    try:
        original = read(other)
    except BitsumError:
        return False
    return original is not None and original.id == recorded.id


def _path_in_metadata(config: "Config") -> str | None:
    """The root in the newest artifact's path, for a root without root.json; None without such an artifact in a store of
    its own."""
    path = config.root / "metadata.sqlite"
    if config.metadata.backend != "sqlite" or config.metadata.path or not path.exists():
        return None
    with contextlib.closing(_open(path, 0.0)) as database:
        if ("Artifact", "uri") not in _columns(database):
            return None
        newest = database.execute("SELECT uri FROM Artifact ORDER BY id DESC LIMIT 1").fetchone()
    match = _ARTIFACT.fullmatch(newest[0] or "") if newest else None
    return match["root"] if match else None


def _former_path_in_metadata(config: "Config", recorded: Root | None) -> str | None:
    """An earlier path of the root that its own store still names, if any."""
    path = config.root / "metadata.sqlite"
    if recorded is None or config.metadata.backend != "sqlite" or config.metadata.path or not path.exists():
        return None
    return next(
        (place for place in recorded.former if place != recorded.path and _holds(path, place, "Artifact", "uri")), None
    )


def _holds(path: pathlib.Path, root: str, table: str, column: str) -> bool:
    """Whether a column of an ML Metadata SQLite file has a path below `root`."""
    with contextlib.closing(_open(path, 0.0)) as database:
        if (table, column) not in _columns(database):
            return False
        query = f"SELECT 1 FROM {table} WHERE {_BELOW.format(column, 'root')} LIMIT 1"
        return database.execute(query, {"root": root}).fetchone() is not None


def _is_folder(path: str) -> bool:
    """Whether `path` can be a root: absolute, and not the top folder."""
    return path.startswith("/") and path.strip("/") != ""


def _names(path: pathlib.Path, root: str) -> bool:
    """Whether an ML Metadata SQLite file has any path below `root`."""
    try:
        return any(_holds(path, root, table, column) for table, column in _COLUMNS)
    except sqlite3.Error as error:
        raise BitsumError(f"cannot use the metadata store {path}: {error}") from error


def _open(path: pathlib.Path, timeout: float) -> sqlite3.Connection:
    # Writable, since only then can SQLite roll back the journal of a killed program.
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None)


def _columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """ML Metadata's columns with paths that exist in the file; a new file has none."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return [(table, column) for table, column in _COLUMNS if table in tables]


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


@contextlib.contextmanager
def _exclusive(root: pathlib.Path, seconds: float) -> Iterator[None]:
    """Lock the root exclusively, whether or not a scheduled run holds the run lock: this may be one of its nodes."""
    end = time.monotonic() + seconds
    with open(root / MARKER, "r+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
                time.sleep(_POLL_SECONDS)
        yield
