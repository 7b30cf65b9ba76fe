"""`bitsum serve`: the ready file, the choice of the server, and one-line refusals."""

import ast
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from serving.client import AdderClient
from tests.conformance import recording
from tests.serving.conftest import BITSUM, bitsum, put, serving
from tests.support.waiting import is_running, wait_for

# Called and logging like tensorflow_model_server. FAKE_MODE selects its behaviour: the embedded server with the given
# flags, a server that always reports version 3 as available, or none.
_FAKE = f"""#!{sys.executable}
import os, sys
print("a line of log", file=sys.stderr, flush=True)
open(os.environ["FAKE_RECORD"], "w").write(repr(sys.argv[1:]) + "\\n" + str(os.getpid()))
mode = os.environ["FAKE_MODE"]
if mode == "serve":
    os.execv(sys.executable, [sys.executable, "-m", "pipeline", "serve", "--server=embedded", *sys.argv[1:]])
if mode.startswith("Failed"):
    sys.exit(mode)
if mode.isdecimal():
    os.kill(os.getpid(), int(mode))
from concurrent import futures
import grpc
from serving import protos
apis = protos.load()
status = apis.status.GetModelStatusResponse()
status.model_version_status.add(version=3, state=apis.status.ModelVersionStatus.AVAILABLE)
class Service(apis.model_service.ModelServiceServicer):
    def GetModelStatus(self, request, context):
        return status
server = grpc.server(futures.ThreadPoolExecutor(1))
apis.model_service.add_ModelServiceServicer_to_server(Service(), server)
server.add_insecure_port("127.0.0.1:" + sys.argv[1].partition("=")[2])
server.start()
server.wait_for_termination()
"""


@pytest.fixture
def base_path(models, tmp_path):
    base_path = tmp_path / "served"
    base_path.mkdir()
    put(models / "right", base_path, 3)
    return base_path


@pytest.fixture
def with_program(tmp_path):
    """(environment, record): a tensorflow_model_server on the PATH that writes its arguments and process to record."""
    program = tmp_path / "bin" / "tensorflow_model_server"
    program.parent.mkdir()
    program.write_text(_FAKE)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    record = tmp_path / "record"
    return {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "FAKE_RECORD": str(record),
        "FAKE_MODE": "status",
    }, record


def test_the_ready_file_describes_the_server(base_path):
    with serving(base_path, "--server=embedded", "--model_name=sum") as server:
        assert server.ready.__dict__ == {
            "host": "127.0.0.1",
            "port": server.ready.port,
            "pid": server.process.pid,
            "server": "embedded",
            "model_name": "sum",
            "version": 3,
        }
        with AdderClient(server.target, "sum") as client:
            assert client.add(13, 29) == 42
        # Loopback only: the machine's other addresses refuse.
        code, _, err = bitsum(
            "serve", f"--port={server.ready.port}", f"--model_base_path={base_path}", "--server=embedded"
        )
        assert (
            code == 1
            and err.count("\n") == 1
            and f"cannot listen on 127.0.0.1:{server.ready.port}: Address already in use" in err
        )
        server.process.send_signal(signal.SIGINT)
        out, err = server.process.communicate(timeout=60)
        assert (server.process.returncode, err) == (0, "")
        assert f"serving sum version 3 at {server.target} (embedded server, process {server.process.pid})" in out
        assert not server.ready_file.exists()


def serve(base_path, *flags, env):
    """The finished `bitsum serve` on a free port, with `env` added to the environment."""
    command = [*BITSUM, "serve", "--port=0", f"--model_base_path={base_path}", *flags]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path / "absent", "is not a folder"),
        (lambda path: path, "has no versions"),
        (lambda path: (path / "saved_model.pb").touch() or path, "is a model: give its parent"),
        (lambda path: (path / "x").touch() or path / "x", "is not a folder"),
    ],
)
def test_a_folder_without_versions_is_refused(tmp_path, make, words):
    code, out, err = bitsum("serve", "--port=0", "--server=embedded", f"--model_base_path={make(tmp_path)}")
    assert (code, out, err.count("\n")) == (1, "", 1) and words in err


def test_a_version_without_a_model_is_refused_with_the_reason(tmp_path):
    (tmp_path / "1").mkdir()
    log = tmp_path / "log"
    code, _, err = bitsum(
        "serve", "--port=0", "--server=embedded", f"--model_base_path={tmp_path}", f"--log_file={log}"
    )
    assert (code, err.count("\n")) == (3, 1) and "should have a file called `saved_model.pb`" in err


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--port=70000"], 2, "serve.port = 70000: must be at most 65535"),
        (["--host=256.1.1.1"], 1, "cannot listen on 256.1.1.1"),
        (["--ready_timeout=-1"], 2, "must not be negative"),
        (["--model_name=a/b"], 2, "without slashes"),
        (["--server=tensorflow_model_server"], 1, "the program tensorflow_model_server is not on the PATH"),
    ],
)
def test_impossible_flags_are_refused(base_path, flags, code, words):
    done, out, err = bitsum("serve", f"--model_base_path={base_path}", *flags)
    assert (done, out, err.count("\n")) == (code, "", 1) and words in err


def test_a_missing_image_is_not_pulled(base_path, tmp_path):
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@" >> "$0.calls"\necho "Error: No such image: $3" >&2\nexit 1\n')
    docker.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = serve(base_path, "--server=docker", "--image=some/image:1", env=path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "No such image: some/image:1" in done.stderr and "docker pull some/image:1" in done.stderr
    assert (tmp_path / "docker.calls").read_text() == "image inspect some/image:1\n"


SWITCHES = {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2", "DNNL_DEFAULT_FPMATH_MODE": "BF16"}
NOTE = (
    "note: cleared from the environment, as the proof excludes the arithmetic that they "
    f"enable: {', '.join(sorted(SWITCHES))}\n"
)


def started(base_path, folder, server, script):
    """The output of `bitsum serve` with `script` as its `server` and switches in the environment."""
    (folder / server).write_text(f"#!/bin/sh\n{script}\n")
    (folder / server).chmod(0o755)
    env = {**SWITCHES, "TF_ENABLE_ONEDNN_OPTS": "0", "PATH": f"{folder}:{os.environ['PATH']}"}
    done = serve(base_path, f"--server={server}", env=env)
    assert done.returncode == 1 and done.stderr.startswith(NOTE) and "ended with exit code 3" in done.stderr
    return (folder / "seen").read_text().splitlines()


def test_arithmetic_switches_are_removed_for_a_program(base_path, tmp_path):
    seen = started(base_path, tmp_path, "tensorflow_model_server", f"env > {tmp_path}/seen; exit 3")
    assert "TF_ENABLE_ONEDNN_OPTS=0" in seen and not [line for line in seen if line.partition("=")[0] in SWITCHES]


def test_arithmetic_switches_are_removed_for_a_container_and_its_image(base_path, tmp_path):
    image = json.dumps(
        [{"Config": {"Env": ["PATH=/bin", "XLA_FLAGS=--xla_cpu_enable_fast_math", "TF_ENABLE_ONEDNN_OPTS=1"]}}]
    )
    script = (
        f"[ $1 = image ] && echo '{image}' && exit 0; env > {tmp_path}/seen; echo \"$@\" >> {tmp_path}/seen; exit 3"
    )
    *environment, arguments = started(base_path, tmp_path, "docker", script)
    assert not [line for line in environment if line.partition("=")[0] in SWITCHES]
    # For Docker, --env with a name alone removes the variable that the image sets.
    assert [word for word in arguments.split() if word.startswith("--env")] == ["--env=XLA_FLAGS"]


@pytest.mark.parametrize("output", ["", "[{}]", "{", '[{"Config": null}]'])
def test_an_image_with_an_unreadable_environment_is_not_started(base_path, tmp_path, output):
    (tmp_path / "docker").write_text(f"#!/bin/sh\n[ $1 = image ] && echo '{output}' && exit 0\nexit 3\n")
    (tmp_path / "docker").chmod(0o755)
    done = serve(base_path, "--server=docker", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "docker image inspect" in done.stderr


def test_the_embedded_server_clears_the_switches(base_path):
    with serving(base_path, "--server=embedded", env={**os.environ, **SWITCHES}) as running:
        running.process.send_signal(signal.SIGTERM)
        _out, err = running.process.communicate(timeout=60)
    assert (running.process.returncode, err) == (0, NOTE)


def test_with_ready_timeout_zero_it_waits_for_a_first_version(models, tmp_path):
    base_path, ready = tmp_path / "later", tmp_path / "ready.json"
    process = subprocess.Popen(
        [
            *BITSUM,
            "serve",
            "--server=embedded",
            "--port=0",
            f"--model_base_path={base_path}",
            f"--ready_file={ready}",
            "--ready_timeout=0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        time.sleep(0.5)
        assert process.poll() is None and not ready.exists()
        base_path.mkdir()
        put(models / "right", base_path, 7)
        wait_for(ready.exists)
        assert json.loads(ready.read_text())["version"] == 7
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_tensorflow_model_server_is_used_if_it_is_on_the_path(base_path, with_program, tmp_path):
    environment, record = with_program
    log = tmp_path / "log"
    with serving(base_path, f"--log_file={log}", env={**environment, "FAKE_MODE": "serve"}) as server:
        assert server.ready.server == "tensorflow_model_server" and server.ready.pid == server.process.pid
        arguments, child = record.read_text().splitlines()
        assert ast.literal_eval(arguments) == [
            f"--port={server.ready.port}",
            "--model_name=bitsum",
            f"--model_base_path={base_path}",
            "--file_system_poll_wait_seconds=1",
        ]
        server.process.send_signal(signal.SIGHUP)
        with AdderClient(server.target) as client:
            assert client.add(13, 29) == 42
        server.process.terminate()
        out, err = server.process.communicate(timeout=60)
        assert server.process.returncode == 0 and "(tensorflow_model_server server" in out
        assert err.startswith("note: tensorflow_model_server listens on all addresses")
        assert not is_running(int(child))
    assert "a line of log" in log.read_text()


def test_the_external_server_ends_with_this_process(base_path, with_program):
    environment, record = with_program
    with serving(base_path, env=environment) as server:
        child = int(record.read_text().splitlines()[1])
        assert is_running(child)
        server.process.kill()
        server.process.communicate()
        wait_for(lambda: not is_running(child))


def test_when_the_external_server_ends_its_exit_code_is_passed_on(base_path, with_program):
    environment, record = with_program
    with serving(base_path, env=environment) as server:
        os.kill(int(record.read_text().splitlines()[1]), signal.SIGKILL)
        server.process.communicate(timeout=60)
        assert server.process.returncode == 128 + 9


def start_lines(name):
    """The log of a real server that failed to start."""
    return [
        line for line in recording.load()["9_startup"][name].record["log"] if line.startswith("Failed to start server")
    ]


def unavailable(cause):
    [line] = start_lines("start_corrupt_retries0")
    return re.sub("due to error: .*?}, }", lambda _: f"due to error: {cause}}}, }}", line)


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        *((line, 3) for line in start_lines("start_corrupt_retries0")),
        *((line, 1) for line in start_lines("start_port_in_use")),
        (unavailable("RESOURCE_EXHAUSTED: variables.index; Too many open files"), 1),
        (unavailable("UNKNOWN: Input/output error"), 1),
        (unavailable("NOT_FOUND: Could not find meta graph def matching supplied tags: { serve }"), 3),
        (str(int(signal.SIGSEGV)), 128 + 11),
        (str(int(signal.SIGKILL)), 128 + 9),
    ],
)
def test_a_failed_external_server_is_quoted_and_a_model_error_needs_its_report(
    base_path, with_program, tmp_path, mode, code
):
    environment, _ = with_program
    # The log of an earlier server is not the reason of this failure.
    (tmp_path / "log").write_text(unavailable("NOT_FOUND: an earlier model") + "\n")
    done = serve(base_path, f"--log_file={tmp_path / 'log'}", env={**environment, "FAKE_MODE": mode})
    assert done.returncode == code, done.stderr
    assert "tensorflow_model_server ended with exit code" in done.stderr and (mode.isdecimal() or mode in done.stderr)


def test_a_port_in_use_is_refused_for_an_external_server(base_path, with_program):
    environment, record = with_program
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve(base_path, f"--port={port}", env=environment)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert not record.exists()
