"""The run lock, one run at a time; and how programs run for a task."""

import ast
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import time

import pytest

from components import processes
from pipeline import root_lock
from tests.support.waiting import is_running, wait_for

pytestmark = pytest.mark.fast

DAGS = pathlib.Path(__file__).parents[2] / "airflow" / "dags"


def load(name: str):
    """Load a module beside the DAG by its file; only Airflow has that folder on its path."""
    spec = importlib.util.spec_from_file_location(name, DAGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


run_lock = load("bitsum_run_lock")
programs = load("bitsum_program")
ONE, TWO, ELSEWHERE = (
    run_lock.Run(airflow, "bitsum", run) for airflow, run in (("here", "one"), ("here", "two"), ("there", "three"))
)


def never(run) -> bool:
    return False


def test_one_run_holds_the_lock_until_it_releases_it(tmp_path):
    lock = run_lock.RunLock(tmp_path)
    assert lock.holder() is None
    assert lock.acquire(ONE, never) is None
    assert lock.acquire(ONE, never) is None, "the holder keeps it"
    assert lock.acquire(TWO, never) == ONE
    lock.release(TWO)
    assert lock.holder() == ONE, "only the holder releases it"
    lock.release(ONE)
    assert lock.acquire(TWO, never) is None
    assert lock.holder() == TWO


def test_the_lock_of_a_finished_run_is_available_unless_another_airflow_holds_it(tmp_path):
    lock = run_lock.RunLock(tmp_path)
    lock.acquire(ONE, never)
    assert lock.acquire(TWO, lambda run: run == ONE) is None
    assert lock.holder() == TWO
    lock.release(TWO)
    lock.acquire(ELSEWHERE, never)
    assert lock.acquire(ONE, lambda run: True) == ELSEWHERE, "the state of another Airflow's run is unknown here"


def _acquire(root, number, won):
    def slowly(run) -> bool:
        # Long enough for all others to have looked.
        time.sleep(0.2)
        return run == ONE

    if run_lock.RunLock(root).acquire(run_lock.Run("here", "bitsum", str(number)), slowly) is None:
        won.put(number)


def test_one_of_many_concurrent_runs_acquires_the_lock(tmp_path):
    run_lock.RunLock(tmp_path).acquire(ONE, never)
    fork = multiprocessing.get_context("fork")
    won = fork.SimpleQueue()
    asking = [fork.Process(target=_acquire, args=(tmp_path, number, won)) for number in range(6)]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
        assert process.exitcode == 0
    winner = won.get()
    assert won.empty()
    assert json.loads((tmp_path / "schedule" / "run-lock.json").read_text())["run"] == str(winner)


def test_the_scheduler_is_recorded_as_the_pipeline_records_processes(tmp_path):
    this = run_lock.process(os.getpid())
    assert this == dataclasses.asdict(processes.this())
    run_lock.RunLock(tmp_path).acquire(ONE, never, this)
    record = json.loads((tmp_path / "schedule" / "run-lock.json").read_text())
    assert {name: record[name] for name in this} == this and record["since"] > 0


@pytest.fixture
def service():
    """A process and its record in run-lock.json."""
    with subprocess.Popen(["sleep", "60"]) as running:
        yield running, run_lock.process(running.pid)
        running.kill()


def test_the_lock_of_an_airflow_that_is_gone_is_available(tmp_path, service):
    lock, (running, record) = run_lock.RunLock(tmp_path), service
    lock.acquire(ELSEWHERE, never, record)
    assert lock.acquire(ONE, never) == ELSEWHERE
    running.kill()
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    assert run_lock.is_gone(record) and not run_lock.is_gone({**record, "host": "elsewhere"})
    assert not run_lock.is_gone({})
    assert lock.acquire(ONE, never) is None
    assert lock.holder() == ONE


def test_a_run_of_the_same_airflow_keeps_its_lock_under_the_next_scheduler(tmp_path, service):
    lock, (running, record) = run_lock.RunLock(tmp_path), service
    lock.acquire(ONE, never, record)
    running.kill()
    running.wait()
    assert lock.acquire(TWO, never) == ONE, "the run is not over: the next scheduler resumes it"
    assert lock.acquire(ONE, never, run_lock.process(os.getpid())) is None
    assert json.loads(lock.file.read_text())["pid"] == os.getpid()


def test_a_stopped_airflow_releases_the_lock_of_its_own_run_only(tmp_path):
    lock = run_lock.RunLock(tmp_path)
    assert lock.release_of("here") is None
    lock.acquire(ELSEWHERE, never)
    assert lock.release_of("here") is None and lock.holder() == ELSEWHERE
    assert lock.release_of("there") == ELSEWHERE and lock.holder() is None
    assert lock.acquire(TWO, never) is None, "the first run gets it"
    assert lock.acquire(ONE, never) == TWO


def test_a_record_without_a_scheduler_is_read_and_rewritten(tmp_path):
    lock = run_lock.RunLock(tmp_path)
    lock.acquire(ONE, never)
    assert lock.acquire(TWO, never) == ONE
    assert lock.acquire(ONE, never, run_lock.process(os.getpid())) is None
    assert json.loads(lock.file.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", '{"airflow": "here"}'])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, text):
    lock = run_lock.RunLock(tmp_path)
    lock.acquire(ONE, never)
    lock.file.write_text(text)
    with pytest.raises(run_lock.UnreadableLock, match=f"{lock.file} does not name the run that holds the lock"):
        lock.acquire(TWO, never)


def test_the_pipeline_reads_the_lock_file_that_airflow_writes(tmp_path):
    assert run_lock.RunLock(tmp_path).file == tmp_path / root_lock.RUN_LOCK


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("print('a'); print('b')", 0, "exit code 0: b"),
        (
            "import sys; sys.stderr.write('bitsum: data gate refused: a sum'); sys.exit(3)",
            3,
            "data gate refused: a sum",
        ),
        ("import os; os.kill(os.getpid(), 9)", -9, "exit code -9: no output"),
    ],
)
def test_a_program_ends_with_its_code_and_its_last_line(script, code, reason, tmp_path):
    ended = programs.Program([sys.executable, "-c", script], str(tmp_path)).wait(lambda line: None)
    assert (ended.code, ended.reason) == (code, reason)


def test_control_characters_in_a_programs_lines_are_escaped(tmp_path):
    lines = []
    script = r"import sys; sys.stdout.buffer.write(b'ok\n\x1b[2Kproven \xe2\x80\xae\xff\x9b\n'); sys.exit(1)"
    ended = programs.Program([sys.executable, "-c", script], str(tmp_path)).wait(lines.append)
    assert lines == ["ok", "\\x1b[2Kproven \\u202e\ufffd\ufffd"]
    assert ended == programs.Ended(1, f"exit code 1: {lines[1]}")


def test_airflows_secrets_and_python_path_do_not_reach_the_program(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("BITSUM_TEST", "kept")
    lines = []
    programs.Program([sys.executable, "-c", "import os; print(*sorted(os.environ))"], str(tmp_path)).wait(lines.append)
    names = lines[0].split()
    assert "BITSUM_TEST" in names
    assert not [name for name in names if name.startswith(("AIRFLOW", "PYTHONPATH"))]


def test_a_program_is_stopped_with_its_children(tmp_path):
    script = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); child.wait()"
    )
    program = programs.Program([sys.executable, "-c", script], str(tmp_path))
    stopped = []

    def stop(line: str) -> None:
        program.stop()
        wait_for(lambda: not is_running(int(line)))
        stopped.append(line)

    assert program.wait(stop).code == -15 and len(stopped) == 1


def test_children_that_outlive_a_program_are_stopped(tmp_path):
    script = "sleep 60 >&- 2>&- & echo $! > child; kill -9 $$"
    program = programs.Program(["sh", "-c", script], str(tmp_path))
    assert program.wait(lambda line: None).code == -9
    child = int((tmp_path / "child").read_text())
    assert is_running(child)
    program.stop()
    wait_for(lambda: not is_running(child))


def test_a_refusal_is_split_into_gate_and_reason():
    assert programs.refusal("data gate refused: a: b refused: c") == ("data gate", "a: b refused: c")
    assert programs.refusal("the disk is full") == ("", "the disk is full")


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.name)
def test_dag_files_import_only_airflow_and_the_standard_library(path):
    imported = {name.partition(".")[0] for name in _imports(ast.parse(path.read_text()))}
    ours = {other.stem for other in DAGS.glob("*.py")}
    assert imported - sys.stdlib_module_names - ours <= {"airflow"}


def _imports(tree: ast.Module) -> set[str]:
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
