"""The lock of a pipeline's folder: who waits for whom, the messages, the timeout, and locks of dead holders."""

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from components import processes
from components.errors import BitsumError
from pipeline import config as configuration
from pipeline import root_lock, workspace

pytestmark = pytest.mark.fast

_HOLDER = """
import sys
from pipeline import config, root_lock
knobs = config.load(None, [sys.argv[1]])
with root_lock.locked(knobs, "bitsum run \\x1b[31mmonday", print, shared=sys.argv[2] == "shared"):
    print("holds", flush=True)
    sys.stdin.read()
"""
_SLEEPER = (
    "import dataclasses, json, time; from components import processes\n"
    "print(json.dumps(dataclasses.asdict(processes.this())), flush=True); time.sleep(600)"
)
_RECORD = {"airflow": "host:/var/airflow", "dag": "bitsum", "run": "scheduled__1"}


@pytest.fixture(autouse=True)
def polling_fast(monkeypatch):
    monkeypatch.setattr(root_lock, "_POLL_SECONDS", 0.02)


@pytest.fixture
def config(tmp_path):
    """A folder with a short lock timeout."""
    made = configuration.load(None, [f"pipeline.root={tmp_path / 'var'}", "pipeline.lock_timeout=0.1"])
    workspace.prepare(made.root)
    return made


def patient(config):
    return dataclasses.replace(config, pipeline=dataclasses.replace(config.pipeline, lock_timeout=60.0))


def silent(line: str) -> None:
    raise AssertionError(f"unexpected line: {line}")


def gives_up(config, words: str, say=lambda line: None) -> None:
    with pytest.raises(BitsumError, match=words), root_lock.locked(config, "bitsum run", say):
        pass


@pytest.fixture
def holder(config):
    """A function that starts a process which holds the lock until its input ends."""
    started = []

    def hold(kind: str = "alone") -> subprocess.Popen:
        command = [sys.executable, "-c", _HOLDER, f"pipeline.root={config.root}", kind]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "holds\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_lock(config):
    """A function that writes run-lock.json and returns its path."""
    path = config.root / root_lock.RUN_LOCK
    path.parent.mkdir()

    def write(**more):
        path.write_text(json.dumps({**_RECORD, **more}))
        return path

    return write


@pytest.fixture
def sleeper():
    """A process and its own record."""
    process = subprocess.Popen([sys.executable, "-c", _SLEEPER], stdout=subprocess.PIPE, text=True)
    yield process, json.loads(process.stdout.readline())
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("theirs", "shared"), [("alone", False), ("alone", True), ("shared", False)])
def test_a_waiting_command_names_the_holder_and_gives_up(config, holder, theirs, shared):
    other, lines = holder(theirs), []
    with pytest.raises(BitsumError) as error, root_lock.locked(config, "bitsum gc", lines.append, shared):
        pass
    # Control characters in a record must not reach the terminal.
    whom = (
        rf"'bitsum run \x1b[31mmonday', process {other.pid} on {os.uname().nodename}, at work in {config.root} since 20"
    )
    assert len(lines) == 1 and lines[0].startswith(f"waiting for {whom}")
    assert str(error.value).startswith(f"gave up after pipeline.lock_timeout = 0.1 s of waiting for {whom}")
    assert error.value.exit_code == 1 and len(str(error.value).splitlines()) == 1
    other.communicate("")
    with root_lock.locked(config, "bitsum gc", silent, shared):
        assert len(list((config.root / "holders").iterdir())) == 1
    assert list((config.root / "holders").iterdir()) == []


@pytest.mark.parametrize(
    "command", [("run",), ("node", "Trainer", "--run-id", "one"), ("gc", "--delete")], ids=" ".join
)
def test_a_lock_timeout_ends_a_command_with_exit_code_1_and_one_line(config, holder, command):
    other = holder()
    program = [
        sys.executable,
        "-m",
        "pipeline",
        *command,
        "--set",
        f"pipeline.root={config.root}",
        "--set",
        "pipeline.lock_timeout=0.1",
    ]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 1
    # A program may read the standard output of gc.
    waiting, *gave_up = (done.stdout + done.stderr).splitlines()[-2:]
    assert f"waiting for 'bitsum run \\x1b[31mmonday', process {other.pid} on" in waiting
    assert gave_up[0].startswith("bitsum: gave up after pipeline.lock_timeout = 0.1 s")


def test_nodes_of_one_run_share_the_folder(config, holder):
    holder("shared")
    with (
        root_lock.locked(config, "bitsum node", silent, shared=True),
        root_lock.locked(config, "bitsum node", silent, shared=True),
    ):
        lines = []
        with pytest.raises(BitsumError, match="and 2 more"), root_lock.locked(config, "bitsum run", lines.append):
            pass


def test_the_wait_ends_with_the_holder_and_is_reported_again_meanwhile(config, holder, monkeypatch):
    monkeypatch.setattr(root_lock, "_REPORT_SECONDS", 0.05)
    other, lines = holder(), []

    def say(line: str) -> None:
        lines.append(line)
        if len(lines) == 3:
            other.kill()

    with root_lock.locked(patient(config), "bitsum run", say):
        # The stale record of the killed holder is gone.
        assert len(list((config.root / "holders").iterdir())) == 1
    assert ["so far" in line for line in lines[:3]] == [False, True, True]


def test_records_of_killed_holders_are_ignored(config, holder):
    gone = holder("shared")
    gone.kill()
    gone.wait()
    (config.root / "holders" / "letter.json").write_text("[]")
    with open(config.root / workspace.MARKER) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        gives_up(config, "waiting for another program that works in")


def test_a_wait_can_be_interrupted(config, holder):
    holder()

    def interrupt(*unused) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt), root_lock.locked(patient(config), "bitsum run", lambda line: None):
            pass
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_whole_run_waits_for_a_scheduled_one_and_its_nodes_do_not(config, run_lock):
    path, lines = run_lock(), []
    with root_lock.locked(config, "bitsum node", silent, shared=True):
        pass

    def say(line: str) -> None:
        lines.append(line)
        path.unlink()

    with root_lock.locked(patient(config), "bitsum run", say):
        pass
    assert len(lines) == 1
    since = time.strftime("%Y-%m-%d")
    assert f"the scheduled run 'scheduled__1' of 'bitsum', which has held the run lock since {since}" in lines[0]
    assert f"from the Airflow 'host:/var/airflow'; if that no longer exists, remove {path}" in lines[0]


def test_the_run_lock_of_an_airflow_that_is_gone_is_removed(config, run_lock, sleeper):
    airflow, record = sleeper
    path, lines = run_lock(since=time.time(), **record), []
    with (
        pytest.raises(BitsumError, match=f"process {airflow.pid} on"),
        root_lock.locked(config, "bitsum run", lines.append),
    ):
        pass
    airflow.kill()
    os.waitid(os.P_PID, airflow.pid, os.WEXITED | os.WNOWAIT)
    lines.clear()
    with root_lock.locked(config, "bitsum run", lines.append):
        assert lines == ["the Airflow 'host:/var/airflow' is gone: its run 'scheduled__1' has lost the run lock"]
        assert not path.exists()


def test_a_run_lock_is_kept_while_a_node_works_or_it_changes(config, run_lock, holder, sleeper):
    airflow, record = sleeper
    path = run_lock(**record)
    airflow.kill()
    airflow.wait()
    node = holder("shared")
    gives_up(config, "monday")
    node.communicate("")
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        gives_up(config, "scheduled__1")
    assert path.exists()
    with root_lock.locked(config, "bitsum run", lambda line: None):
        pass


@pytest.mark.parametrize(
    "changed",
    [{"host": "elsewhere pid:[1]"}, {"host": None}, {"pid": "7"}, {"pid": -1}, {"started": ""}, {"started": None}],
)
def test_a_run_lock_is_kept_unless_its_scheduler_is_known_to_be_gone(config, run_lock, changed):
    run_lock(**{**dataclasses.asdict(processes.this()), "started": "0f7d 17", **changed})
    gives_up(config, "gave up")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"airflow": "here"}', '{"airflow": "a", "dag": "b", "run": "c", "since": "d"}']
)
def test_a_damaged_run_lock_is_named_at_once(config, run_lock, text):
    run_lock().write_text(text)
    gives_up(config, r"run-lock.json does not name the run that holds the lock: remove it", silent)


def test_a_holder_record_that_cannot_be_written_is_ignored(config):
    (config.root / "holders").write_text("in its place")
    with root_lock.locked(config, "bitsum run", silent):
        pass


def test_a_marker_that_cannot_be_opened_is_one_line(config):
    (config.root / workspace.MARKER).unlink()
    (config.root / workspace.MARKER).mkdir()
    gives_up(config, r"cannot lock pipeline.root = .*: Is a directory", silent)
