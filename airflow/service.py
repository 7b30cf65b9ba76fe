"""Airflow on this machine: start it, stop it. Everything it keeps is in one folder, <pipeline.root>/airflow.

    service.py start [--config FILE] [--set SECTION.KNOB=VALUE ...]      # the knobs of `bitsum run`; [schedule] has those of this
    service.py stop [--config FILE] [--set ...]

Run by the Python of Airflow's own environment, which has psutil. The folder gets

    graph.json        the compiled pipeline that the DAG is made of
    airflow           Airflow's command line, for this installation: airflow dags trigger ..., airflow backfill create ...
    password.json     the generated password of the user admin
    airflow.cfg       Airflow's own defaults, with the keys that it generates once
    service.json      its address, and the name by which others know this installation
    processes.json    what runs: process ids and their start times
    *.log             what each process says
"""

import argparse
import contextlib
import json
import os
import pathlib
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable

import psutil

# Beside this file, and as free of Airflow as it is.
from dags.bitsum_turn import Turn, UnreadableTurn, process

_TOP = pathlib.Path(__file__).resolve().parents[1]
_BITSUM = _TOP / ".venv/bin/bitsum"
_AIRFLOW = pathlib.Path(sys.executable).with_name("airflow")
_HOST = "127.0.0.1"
_USER = "admin"
_PASSWORD_FILE = "password.json"
# The API server first: the scheduler's tasks report to it.
_PROCESSES = {"api-server": [], "scheduler": ["--skip-serve-logs"], "dag-processor": []}
_START_SECONDS = 180.0
_STOP_SECONDS = 30.0


class ServiceError(Exception):
    """Airflow cannot be started or stopped; one line."""


def main() -> int:
    """Exit code 0, or 1 with a line on stderr."""
    parser = argparse.ArgumentParser(description="Start or stop Airflow on this machine.", allow_abbrev=False)
    parser.add_argument("action", choices=("start", "stop"), help="start or stop it")
    parser.add_argument("--config", metavar="FILE", help="TOML file with knobs, as for bitsum run")
    parser.add_argument(
        "--set", metavar="SECTION.KNOB=VALUE", action="append", default=[], help="set one knob; may be repeated"
    )
    args = parser.parse_args()
    options = [
        *(["--config", args.config] if args.config else []),
        *(word for knob in args.set for word in ("--set", knob)),
    ]
    try:
        return start(options) if args.action == "start" else stop(options)
    except ServiceError as error:
        print(f"airflow: {error}", file=sys.stderr)
        return 1


def start(options: list[str]) -> int:
    """Start what does not run yet, and say where it is and how to use it."""
    plan = _plan(options)
    home = pathlib.Path(plan["root"], "airflow")
    home.mkdir(exist_ok=True)
    if running := _running(home):
        raise ServiceError(f"{', '.join(running)} of {home} run already: make airflow-stop")
    _write(home / "graph.json", json.dumps(plan, indent=1))
    port = plan["schedule"]["port"] or _free_port()
    _check_free(port)
    _write(home / "service.json", json.dumps({"url": f"http://{_HOST}:{port}", "port": port, "name": _name(home)}))
    password = _password(home)
    environment = _environment(home, plan, port)
    _write_program(home / "airflow", environment)
    _airflow(home, environment, "db", "migrate")
    # So that the DAG is there as soon as the scheduler is, and can be triggered.
    _airflow(home, environment, "dags", "reserialize")
    started: dict[str, subprocess.Popen] = {}
    try:
        for name, arguments in _PROCESSES.items():
            started[name] = _start(home, environment, name, arguments)
            _write(home / "processes.json", json.dumps({name: process(one.pid) for name, one in started.items()}))
            if name == "api-server":
                _wait(home, port, started, lambda health: True)
        _wait(
            home,
            port,
            started,
            lambda health: all(health[part]["status"] == "healthy" for part in ("scheduler", "dag_processor")),
        )
    except BaseException:
        stop_all(home)
        raise
    _say(home, plan, port, password)
    return 0


def stop(options: list[str]) -> int:
    """Stop what runs; the tasks under way are ended with it, and tried again after the next start.

    The turn of the run that had it is free then, and the run takes it again when it goes on.
    """
    root = pathlib.Path(_plan(options)["root"])
    home = root / "airflow"
    stopped = stop_all(home)
    print(f"stopped: {', '.join(stopped)}" if stopped else f"nothing of {home} runs")
    if run := free_turn(root):
        print(f"run {run} has lost its turn, and takes it again after the next start")
    return 0


def free_turn(root: pathlib.Path) -> str | None:
    """Let others work in the folder `root` whose Airflow has been stopped; the run that had the turn, None if none of
    its had.

    Raises:
        ServiceError: it cannot be seen who has it.
    """
    if not (root / "airflow" / "service.json").exists():
        return None
    try:
        run = Turn(str(root)).give_back_of(_name(root / "airflow"))
    except (OSError, UnreadableTurn) as error:
        raise ServiceError(str(error)) from error
    return run.run if run else None


def stop_all(home: pathlib.Path) -> list[str]:
    """Stop the processes that `start` recorded, the last one first, and wait until they and their tasks are gone; their
    names.

    Raises:
        ServiceError: one does not end.
    """
    running = _running(home)
    for name, pid in reversed(running.items()):
        # Tasks have process groups of their own, and the scheduler waits for them: asked themselves, they end what they
        # have started.
        if not _ended(pid, signal.SIGTERM) and not _ended(pid, signal.SIGKILL):
            raise ServiceError(f"{name}, process {pid}, does not end, even when it is killed")
    (home / "processes.json").unlink(missing_ok=True)
    return list(running)


def _plan(options: list[str]) -> dict:
    done = subprocess.run(
        [_BITSUM, "node", "--list", "--json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise ServiceError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(done.stdout)


def _environment(home: pathlib.Path, plan: dict, port: int) -> dict[str, str]:
    """What Airflow is told, by its own names."""
    settings = {
        "core__dags_folder": str(_TOP / "airflow/dags"),
        "core__load_examples": "False",
        "core__executor": "LocalExecutor",
        "core__parallelism": str(plan["schedule"]["parallelism"]),
        "core__simple_auth_manager_users": f"{_USER}:admin",
        "core__simple_auth_manager_passwords_file": str(home / _PASSWORD_FILE),
        "core__execution_api_server_url": f"http://{_HOST}:{port}/execution/",
        "core__default_timezone": "utc",
        "database__sql_alchemy_conn": _database(home, plan["schedule"]["database_file"]),
        "api__host": _HOST,
        "api__port": str(port),
        "api__base_url": f"http://{_HOST}:{port}",
        "api__workers": "1",
        "logging__base_log_folder": str(home / "logs"),
        "dag_processor__refresh_interval": "30",
        "usage_data_collection__enabled": "False",
    }
    # The tasks ask the API server, too, and it is this machine: a proxy of the environment could not reach it.
    direct = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), _HOST]))
    return {
        "AIRFLOW_HOME": str(home),
        "no_proxy": direct,
        "NO_PROXY": direct,
        "BITSUM_GRAPH": str(home / "graph.json"),
        "BITSUM_AIRFLOW": _name(home),
        **{f"AIRFLOW__{name.upper()}": value for name, value in settings.items()},
    }


def _database(home: pathlib.Path, file: str) -> str:
    if not file:
        return f"sqlite:///{home}/airflow.sqlite"
    try:
        return pathlib.Path(file).expanduser().read_text().splitlines()[0].strip()
    except (OSError, IndexError) as error:
        raise ServiceError(f"schedule.database_file = {file!r} cannot be read, or is empty: {error}") from error


def _password(home: pathlib.Path) -> str:
    """The password of the user admin, generated at the first start. Raises: ServiceError: its file is damaged."""
    file = home / _PASSWORD_FILE
    if not file.exists():
        _write(file, json.dumps({_USER: secrets.token_urlsafe(12)}))
    try:
        return json.loads(file.read_text())[_USER]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServiceError(
            f"{file} holds no password of {_USER}: remove it, and the next start makes another"
        ) from error


def _name(home: pathlib.Path) -> str:
    """The name of this installation. It is that of the first start, so that it stays when the host is given another."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads((home / "service.json").read_text())["name"]
    return f"{socket.gethostname()}:{home}"


def _write(file: pathlib.Path, text: str, mode: int = 0o600) -> None:
    """Whole or not at all, and for nobody else to read."""
    beside = file.with_name(f".{file.name}.writing")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as stream:
        stream.write(text)
    os.replace(beside, file)


def _write_program(file: pathlib.Path, environment: dict[str, str]) -> None:
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())
    _write(
        file,
        f'#!/bin/sh\n# Airflow\'s command line for this folder.\n{exports}\nexec {shlex.quote(str(_AIRFLOW))} "$@"\n',
        0o700,
    )


def _airflow(home: pathlib.Path, environment: dict[str, str], *arguments: str) -> None:
    log = home / "setup.log"
    with open(log, "ab") as output:
        command = [_AIRFLOW, *arguments]
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        raise ServiceError(f"airflow {' '.join(arguments)} failed: {_last_line(log)} ({log})")


def _start(home: pathlib.Path, environment: dict[str, str], name: str, arguments: list[str]) -> subprocess.Popen:
    with open(home / f"{name}.log", "ab") as output:
        return subprocess.Popen(
            [_AIRFLOW, name, *arguments],
            env={**os.environ, **environment},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(home: pathlib.Path, port: int, started: dict[str, subprocess.Popen], good: Callable[[dict], bool]) -> None:
    """Until the API server's report of health is `good`."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        for name, program in started.items():
            if program.poll() is not None:
                raise ServiceError(f"{name} ended: {_last_line(home / f'{name}.log')} ({home / f'{name}.log'})")
        with contextlib.suppress(OSError, ValueError, KeyError):
            # Without the proxies of the environment: it is this machine.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{_HOST}:{port}/api/v2/monitor/health", timeout=5) as answer:
                if good(json.load(answer)):
                    return
        time.sleep(0.5)
    raise ServiceError(f"not ready after {_START_SECONDS:g} s: {home}/*.log say why")


def _running(home: pathlib.Path) -> dict[str, int]:
    """{name: process id} of what `start` recorded and still runs; an id that the system gave to another program is not
    ours.

    Raises:
        ServiceError: it cannot be seen what was started.
    """
    file = home / "processes.json"
    try:
        recorded = {name: (one["pid"], one["started"]) for name, one in json.loads(file.read_text()).items()}
        return {name: pid for name, (pid, began) in recorded.items() if began and process(pid)["started"] == began}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServiceError(f"{file} does not say what runs: end that by hand, and remove the file") from error


def _session(leader: int) -> list[psutil.Process]:
    """The living among the processes that `leader` has started, and theirs, but for those in sessions of their own;
    itself among them."""
    members = []
    for one in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(one.pid) == leader and one.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                members.append(one)
    return members


def _ended(leader: int, number: signal.Signals) -> bool:
    """Send a signal to the session of `leader`, and wait for it; whether it is over: a task may outlive what started
    it."""
    for one in _session(leader):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(number)
    deadline = time.monotonic() + _STOP_SECONDS
    # Not psutil's own wait: that takes a zombie which nobody asks for, as in a container without an init, for alive.
    while _session(leader):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((_HOST, 0))
        return found.getsockname()[1]


def _check_free(port: int) -> None:
    """Raises: ServiceError: somebody listens there, whose answers would be taken for those of our API server."""
    with socket.socket() as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind((_HOST, port))
        except OSError as error:
            raise ServiceError(
                f"schedule.port = {port} cannot be had on {_HOST}: {error.strerror}; 0 takes a free one"
            ) from error


def _last_line(log: pathlib.Path) -> str:
    return next(
        (line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "it said nothing"
    )


def _say(home: pathlib.Path, plan: dict, port: int, password: str) -> None:
    dag, knobs = plan["pipeline"], plan["schedule"]
    program = shlex.quote(min(os.path.relpath(home / "airflow"), str(home / "airflow"), key=len))
    print(f"Airflow is at http://{_HOST}:{port}, user {_USER}, password {password}")
    print(f"  DAG {dag}: http://{_HOST}:{port}/dags/{dag}; it runs {knobs['cron'] or 'when it is triggered'}")
    print(f"""  run a span:      {program} dags trigger {dag} --conf '{{"span": "2026-01-31"}}'""")
    print(
        f"""  ... with knobs:  {program} dags trigger {dag} --conf '{{"span": "2026-01-31", "set": ["train.steps=300"]}}'"""
    )
    print(f"  five days:       {program} backfill create --dag-id {dag} --from-date 2026-01-01 --to-date 2026-01-05")
    print(f"  what ran:        {program} dags list-runs {dag}")
    print(f"  what failed:     {plan['root']}/logs/failures.jsonl")
    print("  stop it:         make airflow-stop (with the same ARGS)")


if __name__ == "__main__":
    sys.exit(main())
