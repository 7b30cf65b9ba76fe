"""The first opening of a SQLite store, even to read it, rolls back what a killed writer left."""

import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest
from ml_metadata import metadata_store as client
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.errors import BitsumError
from pipeline import cli
from pipeline.records import metadata_store
from pipeline.runner.owned_metadata import OwnedMetadata
from tests.support.metadata_stores import Store

# With a cache of one page SQLite syncs the journal and writes into the database while the transaction is open.
_KILLED_WRITER = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f"PRAGMA journal_mode={sys.argv[2]}")
database.execute("PRAGMA cache_size=1")
database.execute("BEGIN IMMEDIATE")
database.execute("DELETE FROM Event")
database.execute("CREATE TABLE Junk(x)")
for _ in range(100):
    database.execute("INSERT INTO Junk VALUES (randomblob(5000))")
os.kill(os.getpid(), signal.SIGKILL)
"""
_READERS = (("history",), ("lineage",), ("gc",), ("gc", "--delete"))


@pytest.fixture
def store(tmp_path):
    """A closed store with one run."""
    made = Store(tmp_path / "var")
    made.run("monday", version=7)
    del made.client
    return made


def kill_writer(file: pathlib.Path, mode: str = "delete") -> None:
    """Kill a process in the middle of a large transaction."""
    assert subprocess.run([sys.executable, "-c", _KILLED_WRITER, file, mode]).returncode == -signal.SIGKILL


def hot(store) -> pathlib.Path:
    """Leave a journal that has to be rolled back; the database file."""
    file = metadata_store.sqlite_file(store.config)
    kill_writer(file)
    assert file.with_name("metadata.sqlite-journal").stat().st_size > 5000
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True).execute("SELECT count(*) FROM Event")
    return file


def count_of_events(file: pathlib.Path) -> int:
    """As ML Metadata itself reads them."""
    where = mlmd.ConnectionConfig()
    where.sqlite.filename_uri = str(file)
    known = client.MetadataStore(where)
    return len(known.get_events_by_execution_ids([execution.id for execution in known.get_executions()]))


@pytest.mark.parametrize("command", _READERS, ids=" ".join)
def test_the_first_command_rolls_back_a_hot_journal(store, command, capsys):
    before = count_of_events(metadata_store.sqlite_file(store.config))
    file = hot(store)
    assert cli.main([*command, *store.settings]) == 0, capsys.readouterr().err
    assert not file.with_name("metadata.sqlite-journal").exists()
    assert count_of_events(file) == before > 0


def test_opening_the_store_rolls_back_a_hot_journal(store):
    file = hot(store)
    assert metadata_store.open_store(store.config).get_context_by_type_and_name("pipeline_run", "monday")
    hot(store)
    with OwnedMetadata(metadata_store.connection(store.config)) as handle:
        assert handle.store.get_context_by_type_and_name("pipeline_run", "monday")
    assert "Junk" not in [name for (name,) in sqlite3.connect(file).execute("SELECT name FROM sqlite_master")]


@pytest.mark.parametrize("damage", ["empty", "zeroed head", "cut in its head", "cut in a page", "of a foreign format"])
def test_a_damaged_journal_is_ignored(store, damage, capsys):
    """Only the journal is damaged, so it was never synced: SQLite writes to the database only after that."""
    file = metadata_store.sqlite_file(store.config)
    before = file.read_bytes()
    journal = hot(store).with_name("metadata.sqlite-journal")
    content = journal.read_bytes()
    file.write_bytes(before)
    journal.write_bytes(
        {
            "empty": b"",
            "zeroed head": bytes(512) + content[512:],
            "cut in its head": content[:20],
            "cut in a page": content[:900],
            "of a foreign format": b"letter" * 200,
        }[damage]
    )
    assert cli.main(["history", *store.settings]) == 0, capsys.readouterr().err
    assert "monday" in capsys.readouterr().out
    metadata_store.open_store(store.config).put_context_type(mlmd.ContextType(name="written"))
    assert file.stat().st_size >= len(before)


def test_a_write_ahead_log_is_read(store, capsys):
    file = metadata_store.sqlite_file(store.config)
    kill_writer(file, "wal")
    assert file.with_name("metadata.sqlite-wal").stat().st_size > 0
    for command in _READERS:
        assert cli.main([*command, *store.settings]) == 0, capsys.readouterr().err


def test_the_lock_of_a_killed_process_is_free(store):
    file = metadata_store.sqlite_file(store.config)
    locker = (
        "import os, sqlite3, sys; held = sqlite3.connect(sys.argv[1], "
        "isolation_level=None); held.execute('BEGIN EXCLUSIVE'); "
    )
    subprocess.run([sys.executable, "-c", locker + "os.kill(os.getpid(), 9)", file])
    assert metadata_store.open_store(store.config).get_context_by_type_and_name("pipeline_run", "monday")


def _history_without_rights(store) -> subprocess.CompletedProcess:
    """`bitsum history` by a user who may only read: another user, or root without the capability to override file
    modes."""
    command = [sys.executable, "-m", "pipeline", "history", *store.settings]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *command]
    return subprocess.run(command, capture_output=True, text=True)


def _take_rights(*paths: pathlib.Path, mode: int) -> None:
    for path in paths:
        if os.geteuid() == 0:
            os.chown(path, 12345, 12345)
        path.chmod(mode)


@pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which("setpriv"),
    reason="root passes over the modes of files; setpriv takes that away",
)
def test_without_write_permission_a_clean_store_is_read_and_a_hot_journal_is_one_line(store):
    file = metadata_store.sqlite_file(store.config)
    _take_rights(file, mode=0o444)
    _take_rights(store.root, mode=0o555)
    done = _history_without_rights(store)
    assert (done.returncode, done.stderr) == (0, "") and "monday" in done.stdout

    _take_rights(store.root, mode=0o755)
    file.chmod(0o644)
    journal = hot(store).with_name("metadata.sqlite-journal")
    _take_rights(file, journal, mode=0o444)
    _take_rights(store.root, mode=0o555)
    done = _history_without_rights(store)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"cannot use the metadata store {file}: metadata.sqlite-journal requires write" in done.stderr
    assert "run bitsum history as a user who has it" in done.stderr

    _take_rights(file, mode=0)
    done = _history_without_rights(store)
    assert (
        done.returncode == 1
        and "you have no permission to read it" in done.stderr
        and len(done.stderr.splitlines()) == 1
    )
    _take_rights(store.root, mode=0)
    done = _history_without_rights(store)
    assert done.returncode == 1 and "Permission denied" in done.stderr and len(done.stderr.splitlines()) == 1
    _take_rights(store.root, mode=0o755)


def test_a_wait_for_a_locked_file_can_be_interrupted_and_names_the_holder(store, monkeypatch):
    file = metadata_store.sqlite_file(store.config)
    holding = (
        "import sqlite3, sys; held = sqlite3.connect(sys.argv[1], "
        "isolation_level=None); held.execute('BEGIN EXCLUSIVE'); "
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", holding + "print(flush=True); sys.stdin.read()", file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    rings = []

    def ring(*unused) -> None:
        # A wait that hears of signals only when it is over hears of one.
        rings.append(None)
        if len(rings) == 3:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    try:
        monkeypatch.setattr(metadata_store, "_LOCK_SECONDS", 0.3)
        with pytest.raises(
            BitsumError, match=rf"process {holder.pid}, '.*' has held its lock for 0.3 s; wait for it, or stop it"
        ):
            metadata_store.open_store(store.config)
        monkeypatch.setattr(metadata_store, "_LOCK_SECONDS", 10.0)
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        with pytest.raises(KeyboardInterrupt):
            metadata_store.open_store(store.config)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        holder.communicate(b"")
