"""The ML Metadata store: where it is, and how it is opened."""

import contextlib
import os
import pathlib
import random
import socket
import sqlite3
import time
from collections.abc import Iterator

from ml_metadata import errors, metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import processes
from components.errors import BitsumError, ConfigError
from pipeline.config import Config, Metadata

_PORTS = {"mysql": 3306, "postgresql": 5432}
RUN_CONTEXT = "pipeline_run"
NODE_CONTEXT = "node"

# ML Metadata itself tries some 25 s on a locked file, and then says that tables are missing.
_LOCK_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 0.1
_CONNECT_SECONDS = 5.0

# What SQLite keeps beside its file while it writes: the journal to roll back, or, in its other mode, the one to go on
# with.
_LEFT_BY_WRITERS = ("-journal", "-wal")

# What a database says to the second of two programs that set it up at once: it will be there in a moment.
_SET_UP_BY_ANOTHER = ("duplicate key", "already exists", "subset of tables", "oncurrent")
_ATTEMPTS = 6


def connection(config: Config) -> mlmd.ConnectionConfig:
    """Where the metadata store is, as ML Metadata wants to be told.

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
    """A client of the store; a new one is set up where there is none.

    Raises:
        BitsumError: it cannot be reached or opened.
    """
    where = connection(config)
    recover(where)
    for attempt in range(_ATTEMPTS):
        try:
            return metadata_store.MetadataStore(where)
        except Exception as error:
            # ML Metadata raises errors of many modules of its own, all with the database's words in them.
            if attempt + 1 == _ATTEMPTS or not any(words in str(error) for words in _SET_UP_BY_ANOTHER):
                raise unusable(where, error) from error
            time.sleep(attempt + random.random())
    raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def opened(config: Config) -> Iterator[metadata_store.MetadataStore]:
    """As `open_store`; what goes wrong in the block with the database is told in one line, too.

    Raises:
        BitsumError: it cannot be reached, opened or used.
    """
    store = open_store(config)
    try:
        yield store
    except errors.StatusError as error:
        raise unusable(connection(config), error) from error


@contextlib.contextmanager
def existing(config: Config) -> Iterator[metadata_store.MetadataStore]:
    """As `opened`, of a store that is there already.

    Raises:
        BitsumError: there is none, or it cannot be used.
    """
    path = sqlite_file(config)
    try:
        if config.metadata.backend == "sqlite":
            os.stat(path)
    except FileNotFoundError as error:
        missing = f"there is no metadata store {path}: bitsum run makes one, --set pipeline.root names another folder"
        raise BitsumError(missing) from error
    except OSError as error:
        raise BitsumError(f"cannot use the metadata store {path}: {error.strerror}") from error
    with opened(config) as store:
        yield store


def recover(where: mlmd.ConnectionConfig) -> None:
    """Have a SQLite file ready for whoever opens it next, also to read only: what a killed writer left half done is
    rolled back.

    SQLite does that itself, but only through a connection that may write. A lock is waited for, since ML Metadata says
    nothing of it. Not to be called while another thread of this process is at work in the store: ML Metadata has a
    SQLite of its own, and in one process the two do not see each other's locks.

    Raises:
        BitsumError: the file stays locked, is no database, or must be rolled back by somebody who may write to it.
    """
    path = pathlib.Path(where.sqlite.filename_uri)
    if where.WhichOneof("config") != "sqlite" or not os.path.isfile(path):
        return
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            # SQLite's own wait cannot be interrupted. Where the file may not be written, this opens it to read.
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return
        except sqlite3.Error as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise _unusable_file(path, str(error)) from error
        time.sleep(_ASK_AGAIN_SECONDS)


def _unusable_file(path: pathlib.Path, words: str) -> BitsumError:
    """The one line about a SQLite file: what `words` of SQLite's mean here, and what to do."""
    if "locked" in words:
        words = f"{processes.lock_holder(path) or 'another program'} has held its lock for {_LOCK_SECONDS:g} s"
        advice = "wait for it, or stop it"
    elif not os.access(path, os.R_OK):
        words, advice = f"you may not read it ({words})", "let somebody run this who may"
    elif not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        left = [
            file.name for file in (path.with_name(path.name + end) for end in _LEFT_BY_WRITERS) if os.path.exists(file)
        ]
        words = f"{' and '.join(left) or 'its journal mode'} asks for a user who may write to the file and its folder ({words})"
        advice = "let one run bitsum history: that rolls back what a killed run left half done"
    else:
        advice = "set metadata.path to another file"
    return BitsumError(f"cannot use the metadata store {path}: {words}; {advice}")


def unusable(where: mlmd.ConnectionConfig, error: Exception) -> BitsumError:
    """`error` of ML Metadata's as one line that says what can be done. Of a database server it does not say why it
    cannot be used."""
    backend = where.WhichOneof("config")
    words = " ".join(str(error).split())[:300]
    if backend == "sqlite":
        return BitsumError(f"cannot use the metadata store {where.sqlite.filename_uri}: {words}")
    database = getattr(where, backend)
    target = f"{backend} at {database.host}:{database.port}"
    try:
        socket.create_connection((database.host, int(database.port)), _CONNECT_SECONDS).close()
    except OSError as away:
        reason = f"nobody answers ({away.strerror or away}): start the database, or see metadata.host and metadata.port"
        return BitsumError(f"cannot reach the metadata store, {target}: {reason}")
    if "connection pointer is NULL" in words:
        words = "it does not let us in"
    name = database.dbname if backend == "postgresql" else database.database
    knobs = "metadata.user, metadata.password_file and metadata.database"
    return BitsumError(
        f"cannot use the metadata store, {target}, database {name!r}, user {database.user!r}: {words}; see {knobs}"
    )


def _password(knobs: Metadata) -> str:
    if not knobs.password_file:
        return ""
    try:
        return pathlib.Path(knobs.password_file).expanduser().read_text().splitlines()[0]
    except (OSError, IndexError) as error:
        raise ConfigError(
            f"metadata.password_file = {knobs.password_file!r} cannot be read, or is empty: {error}"
        ) from error
