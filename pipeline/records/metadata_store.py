"""The ML Metadata store: its location, and how to open it."""

import contextlib
import os
import pathlib
import random
import re
import socket
import sqlite3
import time
from collections.abc import Iterator

import ml_metadata
from ml_metadata import errors, metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import processes
from components.errors import BitsumError, ConfigError
from pipeline.config import Config, Metadata

_PORTS = {"mysql": 3306, "postgresql": 5432}
RUN_CONTEXT = "pipeline_run"
NODE_CONTEXT = "node"

# ML Metadata itself retries a locked file for some 25 s, and then reports missing tables.
_LOCK_SECONDS = 10.0
_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 5.0

# SQLite's journal and write-ahead log, which a killed writer leaves beside the file.
_JOURNALS = ("-journal", "-wal")

# Errors of a database that another program is setting up at the same time; a retry succeeds.
_SET_UP_BY_ANOTHER = ("duplicate key", "already exists", "subset of tables", "oncurrent")
_ATTEMPTS = 6

# ML Metadata opens only a store of its own schema. Its releases 1.16 and 1.21 have the same one.
_OTHER_SCHEMA = re.compile(r"database version (\d+) is (?:older|greater) than library version (\d+)")


def connection(config: Config) -> mlmd.ConnectionConfig:
    """The location of the metadata store, as ML Metadata's connection config.

    Raises:
        ConfigError: the password file cannot be read.
    """
    knobs = config.metadata
    result = mlmd.ConnectionConfig()
    if knobs.backend == "sqlite":
        result.sqlite.filename_uri = str(sqlite_file(config))
        result.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        return result
    port = knobs.port or _PORTS[knobs.backend]
    if knobs.backend == "mysql":
        database = result.mysql
        database.database, database.port = knobs.database, port
    else:
        database = result.postgresql
        database.dbname, database.port = knobs.database, str(port)
    database.host, database.user, database.password = knobs.host, knobs.user, _password(knobs)
    return result


def sqlite_file(config: Config) -> pathlib.Path:
    """The SQLite file of the metadata."""
    return (
        pathlib.Path(config.metadata.path).expanduser().resolve()
        if config.metadata.path
        else config.root / "metadata.sqlite"
    )


def open_store(config: Config) -> metadata_store.MetadataStore:
    """A client of the store, which is created if it does not exist.

    Raises:
        BitsumError: the store cannot be reached or opened.
    """
    location = connection(config)
    recover(location)
    for attempt in range(_ATTEMPTS):
        try:
            return metadata_store.MetadataStore(location)
        except Exception as error:
            # ML Metadata raises errors of many modules; all contain the database's message.
            if attempt + 1 == _ATTEMPTS or not any(words in str(error) for words in _SET_UP_BY_ANOTHER):
                raise unusable(location, error) from error
            time.sleep(attempt + random.random())
    raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def opened(config: Config) -> Iterator[metadata_store.MetadataStore]:
    """As `open_store`; a database error inside the block becomes a BitsumError too.

    Raises:
        BitsumError: the store cannot be reached, opened or used.
    """
    store = open_store(config)
    try:
        yield store
    except errors.StatusError as error:
        raise unusable(connection(config), error) from error


@contextlib.contextmanager
def existing(config: Config) -> Iterator[metadata_store.MetadataStore]:
    """As `opened`, for a store that must exist.

    Raises:
        BitsumError: the store does not exist, or cannot be used.
    """
    path = sqlite_file(config)
    try:
        if config.metadata.backend == "sqlite":
            os.stat(path)
    except FileNotFoundError as error:
        missing = f"{path} does not exist: bitsum run creates it, --set pipeline.root names another folder"
        raise BitsumError(missing) from error
    except OSError as error:
        raise BitsumError(f"cannot use the metadata store {path}: {error.strerror}") from error
    with opened(config) as store:
        yield store


def recover(location: mlmd.ConnectionConfig) -> None:
    """Roll back what a killed writer left in a SQLite file, so that it can also be opened read-only.

    SQLite does so itself, but only through a writable connection. This function waits for locks, since ML Metadata does
    not report them. Do not call it while another thread of this process uses the store: ML Metadata links its own
    SQLite, and within one process the two do not see each other's locks.

    Raises:
        BitsumError: the file stays locked, is not a database, or needs a rollback by a user with write access.
    """
    path = pathlib.Path(location.sqlite.filename_uri)
    if location.WhichOneof("config") != "sqlite" or not os.path.isfile(path):
        return
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            # SQLite's own wait cannot be interrupted. Without write permission this opens the file read-only.
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return
        except sqlite3.Error as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise _unusable_file(path, str(error)) from error
        time.sleep(_POLL_SECONDS)


def _unusable_file(path: pathlib.Path, message: str) -> BitsumError:
    """The meaning of SQLite's `message` about a file, and what to do."""
    if "locked" in message:
        message = f"{processes.lock_holder(path) or 'another program'} has held its lock for {_LOCK_SECONDS:g} s"
        advice = "wait for it, or stop it"
    elif not os.access(path, os.R_OK):
        message, advice = f"you have no permission to read it ({message})", "run this as a user who has it"
    elif not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        journals = [name for end in _JOURNALS if os.path.exists(path.with_name(name := path.name + end))]
        needs = " and ".join(journals) or "its journal mode"
        message = f"{needs} requires write access to the file and its folder ({message})"
        advice = "run bitsum history as a user who has it: that rolls back what a killed run left"
    else:
        advice = "set metadata.path to another file"
    return BitsumError(f"cannot use the metadata store {path}: {message}; {advice}")


def unusable(location: mlmd.ConnectionConfig, error: Exception) -> BitsumError:
    """ML Metadata's `error` as one line with advice. ML Metadata does not report why a database server is unusable."""
    backend = location.WhichOneof("config")
    message = " ".join(str(error).split())[:300]
    if schema := _OTHER_SCHEMA.search(message):
        message = (
            f"its schema is version {schema[1]}, and ml-metadata {ml_metadata.__version__} needs version {schema[2]}: "
            "use it with the release of bitsum that wrote it last, or set metadata.path or metadata.database to another"
        )
    if backend == "sqlite":
        return BitsumError(f"cannot use the metadata store {location.sqlite.filename_uri}: {message}")
    database = getattr(location, backend)
    target = f"{backend} at {database.host}:{database.port}"
    if schema:
        return BitsumError(f"cannot use the metadata store, {target}: {message}")
    try:
        socket.create_connection((database.host, int(database.port)), _CONNECT_SECONDS).close()
    except OSError as down:
        reason = f"no server answers ({down.strerror or down}): start it, or see metadata.host and metadata.port"
        return BitsumError(f"cannot reach the metadata store, {target}: {reason}")
    if "connection pointer is NULL" in message:
        message = "the server refuses the login"
    name = database.dbname if backend == "postgresql" else database.database
    knobs = "metadata.user, metadata.password_file and metadata.database"
    return BitsumError(
        f"cannot use the metadata store, {target}, database {name!r}, user {database.user!r}: {message}; see {knobs}"
    )


def _password(knobs: Metadata) -> str:
    if not knobs.password_file:
        return ""
    try:
        return pathlib.Path(knobs.password_file).expanduser().read_text().splitlines()[0]
    except (OSError, IndexError) as error:
        raise ConfigError(
            f"cannot read metadata.password_file = {knobs.password_file!r}, or it is empty: {error}"
        ) from error
