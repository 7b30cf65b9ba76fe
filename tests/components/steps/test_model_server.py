"""Starting and querying a model server as programs: working, ending, hanging and missing ones."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from components.errors import BitsumError, ModelError
from components.steps import model_server
from tests.support.waiting import is_running, wait_for

pytestmark = [pytest.mark.fast, pytest.mark.slow]

_READY = """
import json, os, signal, sys, time
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *unused: sys.exit(0))
print("loading", flags["model_name"], flush=True)
beside = flags["ready_file"] + ".tmp"
with open(beside, "w") as file:
    json.dump({"host": "127.0.0.1", "port": 4321, "server": "fake", "version": 7}, file)
os.rename(beside, flags["ready_file"])
time.sleep(60)
"""


def _command(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_ready_server_is_used_and_then_stopped(tmp_path):
    log = tmp_path / "server.log"
    with model_server.serving(_command(_READY), "adder", tmp_path, log, timeout=30) as server:
        assert (server.target, server.kind, server.version) == ("127.0.0.1:4321", "fake", 7)
        assert server.process.poll() is None
    assert server.process.returncode == 0
    assert log.read_text() == "loading adder\n"


CRASHES = ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGBUS")
OTHER_SIGNALS = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")
# How a server ends -> the error, and its text. A shell and docker give the signal of their child as
# 128 + N.
ENDS = {
    "sys.exit(3)": (ModelError, "with exit code 3"),
    **{f"sys.exit({code})": (model_server.ServerFailed, f"with exit code {code}") for code in (0, 1, 2, 125, 127, 255)},
    **{f"die(signal.{name})": (model_server.ServerCrashed, f"by {name}") for name in CRASHES},
    **{f"sys.exit(128 + signal.{name})": (model_server.ServerCrashed, f"by {name}") for name in CRASHES},
    **{f"die(signal.{name})": (model_server.ServerFailed, f"by {name}") for name in OTHER_SIGNALS},
    **{f"sys.exit(128 + signal.{name})": (model_server.ServerFailed, f"by {name}") for name in OTHER_SIGNALS},
}
_DIE = """
import os, resource, signal, sys
def die(number):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
    os.kill(os.getpid(), number)
"""


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_server_shows_the_cause(tmp_path, end):
    kind, text = ENDS[end]
    program = f"{_DIE}\nprint('reading'); print('these are its last words', flush=True); {end}"
    with pytest.raises(BitsumError) as caught:
        model_server.start(_command(program), "adder", tmp_path, tmp_path / "log", 30, port=0, outlives=False)
    assert type(caught.value) is kind
    assert str(caught.value) == f"the model server ended {text}: these are its last words"


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ("die(signal.SIGSEGV)", model_server.ServerCrashed),
        ("die(signal.SIGKILL)", model_server.ServerFailed),
        ("sys.exit(1)", model_server.ServerFailed),
    ],
)
def test_the_end_of_a_server_during_the_queries_replaces_their_error(tmp_path, end, kind):
    program = _DIE + _READY.replace("time.sleep(60)", end)
    with (
        pytest.raises(BitsumError) as caught,
        model_server.serving(_command(program), "adder", tmp_path, tmp_path / "log", 30) as server,
    ):
        server.process.wait()
        raise BitsumError("nobody answers")
    assert type(caught.value) is kind
    with (
        pytest.raises(BitsumError) as caught,
        model_server.serving(_command(program), "adder", tmp_path, tmp_path / "log", 30) as server,
    ):
        server.process.wait()
    assert type(caught.value) is kind


def test_an_error_of_the_queries_to_a_running_server_is_kept(tmp_path):
    with (
        pytest.raises(BitsumError, match=r"^wrong$"),
        model_server.serving(_command(_READY), "adder", tmp_path, tmp_path / "log", 30),
    ):
        raise BitsumError("wrong")


def test_a_server_that_serves_nothing_in_time_is_stopped(tmp_path):
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    log = tmp_path / "log"
    with pytest.raises(model_server.ServerFailed, match="no version available within 1 s"):
        model_server.start(_command(program), "adder", tmp_path, log, 1, port=0, outlives=False)
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


def test_a_server_that_ignores_the_request_to_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(model_server, "_STOP_SECONDS", 0.2)
    stubborn = _READY.replace("lambda *unused: sys.exit(0)", "signal.SIG_IGN")
    with model_server.serving(_command(stubborn), "adder", tmp_path, tmp_path / "log", timeout=30) as server:
        pass
    assert server.process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_processes_behind_a_wrapper_are_stopped_too(tmp_path):
    """A shell that starts the server, and waits for it, is ended alone by a signal."""
    wrapped = (
        f"{sys.executable} -c 'import os, sys, time; open(sys.argv[1], "
        f'"w").write(str(os.getpid())); time.sleep(60)\' {tmp_path}/pid'
    )
    with (
        pytest.raises(model_server.ServerFailed, match="no version available within 3 s"),
        model_server.serving(["/bin/sh", "-c", f"{wrapped}; true"], "adder", tmp_path, tmp_path / "log", timeout=3),
    ):
        pass
    wait_for(lambda: not is_running(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "a", "port": "b", "server": "c", "version": 1}'])
def test_an_invalid_ready_file_is_the_servers_failure(tmp_path, content):
    [dumped] = [line for line in _READY.splitlines() if "json.dump" in line]
    ready = _READY.replace(dumped, f"    file.write({content!r})")
    with pytest.raises(model_server.ServerFailed, match=r"ready file .*log.ready.json cannot be read"):
        model_server.start(_command(ready), "adder", tmp_path, tmp_path / "log", 30, port=0, outlives=False)


def test_a_program_beside_this_python_is_found_without_a_path(monkeypatch):
    monkeypatch.setenv("PATH", "")
    name = pathlib.Path(sys.executable).name
    assert model_server.program([name, "-V"]) == [sys.executable, "-V"]


def test_a_missing_program_is_named():
    with pytest.raises(BitsumError, match="'no-such-program'"):
        model_server.program(["no-such-program"])


def test_the_probers_report_is_read_whatever_its_exit_code():
    program = 'import sys; print(\'{"asked": 2, "right": 1}\'); sys.exit(1)'
    assert model_server.probe(_command(program), "127.0.0.1:1", [], 30) == {"asked": 2, "right": 1}


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('bitsum: no server at 127.0.0.1:1')", "exit code 1: bitsum: no server"),
        ("import time; time.sleep(60)", "did not finish within 0.5 s"),
    ],
)
def test_a_prober_without_a_report_is_an_error(program, words):
    with pytest.raises(BitsumError, match=words):
        # Long enough for a busy machine to start a program, unless that is what is to take too long.
        model_server.probe(_command(program), "127.0.0.1:1", [], 0.5 if "sleep" in program else 30.0)


_KILLED = """
import json, os, pathlib, signal, sys
from components.steps import model_server
command, folder, outlives = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3] == "True"
server = model_server.start(command, "adder", folder, folder / "log", 30, port=0, outlives=outlives)
print(server.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("outlives", [False, True])
def test_a_server_ends_with_a_killed_parent_unless_it_is_to_outlive_it(tmp_path, outlives):
    command = [sys.executable, "-c", _KILLED, json.dumps(_command(_READY)), str(tmp_path), str(outlives)]
    pid = int(subprocess.run(command, capture_output=True, text=True).stdout)
    try:
        if outlives:
            time.sleep(1.0)
            assert is_running(pid)
        else:
            wait_for(lambda: not is_running(pid))
    finally:
        if outlives:
            os.kill(pid, signal.SIGKILL)
