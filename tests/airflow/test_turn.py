"""One run at a time: who gets the turn, who waits, and what a run that died leaves."""

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
    """A module beside the DAG, by its file: Airflow puts that folder on its path, we do not."""
    spec = importlib.util.spec_from_file_location(name, DAGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


turns = load("bitsum_turn")
programs = load("bitsum_program")
ONE, TWO, ELSEWHERE = (
    turns.Run(airflow, "bitsum", run) for airflow, run in (("here", "one"), ("here", "two"), ("there", "three"))
)


def never(run) -> bool:
    return False


def test_one_run_has_the_turn_until_it_gives_it_back(tmp_path):
    turn = turns.Turn(tmp_path)
    assert turn.holder() is None
    assert turn.take(ONE, never) is None
    assert turn.take(ONE, never) is None, "whoever has it has it still"
    assert turn.take(TWO, never) == ONE
    turn.give_back(TWO)
    assert turn.holder() == ONE, "nobody gives back what is another's"
    turn.give_back(ONE)
    assert turn.take(TWO, never) is None
    assert turn.holder() == TWO


def test_the_turn_of_a_run_that_is_over_can_be_taken_unless_another_airflow_has_it(tmp_path):
    turn = turns.Turn(tmp_path)
    turn.take(ONE, never)
    assert turn.take(TWO, lambda run: run == ONE) is None
    assert turn.holder() == TWO
    turn.give_back(TWO)
    turn.take(ELSEWHERE, never)
    assert turn.take(ONE, lambda run: True) == ELSEWHERE, (
        "whether a run of another Airflow is over cannot be known here"
    )


def _take(root, number, won):
    def slowly(run) -> bool:
        # Long enough for all others to have looked, too.
        time.sleep(0.2)
        return run == ONE

    if turns.Turn(root).take(turns.Run("here", "bitsum", str(number)), slowly) is None:
        won.put(number)


def test_of_many_that_find_a_run_over_at_once_one_gets_its_turn(tmp_path):
    turns.Turn(tmp_path).take(ONE, never)
    fork = multiprocessing.get_context("fork")
    won = fork.SimpleQueue()
    asking = [fork.Process(target=_take, args=(tmp_path, number, won)) for number in range(6)]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
        assert process.exitcode == 0
    winner = won.get()
    assert won.empty()
    assert json.loads((tmp_path / "schedule" / "turn.json").read_text())["run"] == str(winner)


def test_who_runs_a_run_is_written_down_as_the_pipeline_does_it(tmp_path):
    this = turns.process(os.getpid())
    assert this == dataclasses.asdict(processes.this())
    turns.Turn(tmp_path).take(ONE, never, this)
    told = json.loads((tmp_path / "schedule" / "turn.json").read_text())
    assert {name: told[name] for name in this} == this and told["since"] > 0


@pytest.fixture
def service():
    """A process and what turn.json says of it."""
    with subprocess.Popen(["sleep", "60"]) as running:
        yield running, turns.process(running.pid)
        running.kill()


def test_the_turn_of_an_airflow_that_is_gone_can_be_taken(tmp_path, service):
    turn, (running, told) = turns.Turn(tmp_path), service
    turn.take(ELSEWHERE, never, told)
    assert turn.take(ONE, never) == ELSEWHERE
    running.kill()
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    assert turns.is_gone(told) and not turns.is_gone({**told, "host": "elsewhere"}) and not turns.is_gone({})
    assert turn.take(ONE, never) is None
    assert turn.holder() == ONE


def test_a_run_of_the_same_airflow_goes_on_under_its_next_scheduler(tmp_path, service):
    turn, (running, told) = turns.Turn(tmp_path), service
    turn.take(ONE, never, told)
    running.kill()
    running.wait()
    assert turn.take(TWO, never) == ONE, "its run is not over: the next scheduler goes on with it"
    assert turn.take(ONE, never, turns.process(os.getpid())) is None
    assert json.loads(turn.file.read_text())["pid"] == os.getpid()


def test_a_stopped_airflow_gives_back_the_turn_of_its_run_and_no_others(tmp_path):
    turn = turns.Turn(tmp_path)
    assert turn.give_back_of("here") is None
    turn.take(ELSEWHERE, never)
    assert turn.give_back_of("here") is None and turn.holder() == ELSEWHERE
    assert turn.give_back_of("there") == ELSEWHERE and turn.holder() is None
    assert turn.take(TWO, never) is None, "and whoever comes first has it"
    assert turn.take(ONE, never) == TWO


def test_a_file_of_before_is_read_and_written_anew(tmp_path):
    turn = turns.Turn(tmp_path)
    turn.file.parent.mkdir()
    turn.file.write_text(json.dumps(dataclasses.asdict(ONE)))
    assert turn.holder() == ONE
    assert turn.take(TWO, never) == ONE
    assert turn.take(ONE, never, turns.process(os.getpid())) is None
    assert json.loads(turn.file.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", '{"airflow": "here"}'])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, text):
    turn = turns.Turn(tmp_path)
    turn.take(ONE, never)
    turn.file.write_text(text)
    with pytest.raises(turns.UnreadableTurn, match=f"{turn.file} does not say which run has the turn: remove it"):
        turn.take(TWO, never)


def test_who_runs_the_whole_pipeline_looks_for_the_turn_where_it_is(tmp_path):
    assert turns.Turn(tmp_path).file == tmp_path / root_lock.TURN


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("print('a'); print('b')", 0, "exit code 0: b"),
        (
            "import sys; sys.stderr.write('bitsum: data gate refused: a sum'); sys.exit(3)",
            3,
            "data gate refused: a sum",
        ),
        ("import os; os.kill(os.getpid(), 9)", -9, "exit code -9: it said nothing"),
    ],
)
def test_a_program_ends_with_its_code_and_its_last_line(script, code, reason, tmp_path):
    ended = programs.Program([sys.executable, "-c", script], str(tmp_path)).wait(lambda line: None)
    assert (ended.code, ended.reason) == (code, reason)


def test_lines_of_a_program_steer_no_terminal_and_no_log(tmp_path):
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


def test_a_program_goes_with_its_children_when_it_is_stopped(tmp_path):
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


def test_children_that_outlive_a_program_are_stopped_too(tmp_path):
    script = "sleep 60 >&- 2>&- & echo $! > child; kill -9 $$"
    program = programs.Program(["sh", "-c", script], str(tmp_path))
    assert program.wait(lambda line: None).code == -9
    child = int((tmp_path / "child").read_text())
    assert is_running(child)
    program.stop()
    wait_for(lambda: not is_running(child))


def test_the_gate_and_the_reason_of_a_refusal_are_told_apart():
    assert programs.refusal("data gate refused: a: b refused: c") == ("data gate", "a: b refused: c")
    assert programs.refusal("the disk is full") == ("", "the disk is full")


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.name)
def test_what_the_scheduler_reads_imports_airflow_and_the_standard_library_alone(path):
    imported = {name.partition(".")[0] for name in _imports(ast.parse(path.read_text()))}
    ours = {other.stem for other in DAGS.glob("*.py")}
    assert imported - sys.stdlib_module_names - ours <= {"airflow"}


def _imports(tree: ast.Module) -> set[str]:
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
