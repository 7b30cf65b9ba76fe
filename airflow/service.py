"""Start and stop Airflow on this machine. It keeps everything in one folder, <pipeline.root>/airflow.

    service.py start [--config FILE] [--set SECTION.KNOB=VALUE ...]  # the knobs of `bitsum run`; [schedule] is for this
    service.py stop [--config FILE] [--set ...]

Runs in the Python of Airflow's own environment, which has psutil. The folder holds

    graph.json        the compiled pipeline that the DAG is built from
    airflow           Airflow's command line for this installation, as in airflow dags trigger, airflow backfill create
    password.json     the generated password of the user admin
    airflow.cfg       Airflow's own defaults, with the keys that it generates once
    service.json      the address and the name of this installation
    processes.json    the running processes: ids and start times
    *.log             the output of each process
"""

import argparse
import contextlib
import datetime
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
from typing import Any

import psutil

# Beside this file; like it, the module does not import Airflow.
from dags.bitsum_run_lock import RunLock, UnreadableLock, process

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
    """Exit code 0, or 1 with a line on standard error."""
    parser = argparse.ArgumentParser(description="Start or stop Airflow on this machine.", allow_abbrev=False)
    parser.add_argument("action", choices=("start", "stop"), help="what to do")
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
        sys.stderr.write(f"airflow: {error}\n")
        return 1


def start(options: list[str]) -> int:
    """Start Airflow, and print its address and how to use it."""
    plan = _plan(options)
    home = pathlib.Path(plan["root"], "airflow")
    home.mkdir(exist_ok=True)
    if running := _running(home):
        raise ServiceError(f"Airflow already runs in {home} ({', '.join(running)}): make airflow-stop stops it")
    _write(home / "graph.json", json.dumps(plan, indent=1))
    port = plan["schedule"]["port"] or _free_port()
    _check_free(port)
    _write(home / "service.json", json.dumps({"url": f"http://{_HOST}:{port}", "port": port, "name": _name(home)}))
    password = _password(home)
    environment = _environment(home, plan, port)
    _write_program(home / "airflow", environment)
    _airflow(home, environment, "db", "migrate")
    # The DAG can then be triggered as soon as the scheduler runs.
    _airflow(home, environment, "dags", "reserialize")
    started: dict[str, subprocess.Popen] = {}
    try:
        for name, arguments in _PROCESSES.items():
            started[name] = _start(home, environment, name, arguments)
            _write(
                home / "processes.json", json.dumps({name: process(program.pid) for name, program in started.items()})
            )
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
    _print_usage(home, plan, port, password)
    return 0


def stop(options: list[str]) -> int:
    """Stop Airflow and its running tasks, which are retried after the next start.

    The run lock is released; its run acquires it again when it resumes.
    """
    root = pathlib.Path(_plan(options)["root"])
    home = root / "airflow"
    stopped = stop_all(home)
    _print(f"stopped: {', '.join(stopped)}" if stopped else f"Airflow is not running in {home}")
    if run := release_lock(root):
        _print(f"run {run} has lost the run lock; it acquires it again after the next start")
    return 0


def release_lock(root: pathlib.Path) -> str | None:
    """Release the run lock of `root`, whose Airflow was stopped; the id of the run that held it, None if no run of this
    Airflow did.

    Raises:
        ServiceError: the lock file is unreadable.
    """
    if not (root / "airflow" / "service.json").exists():
        return None
    try:
        run = RunLock(str(root)).release_of(_name(root / "airflow"))
    except (OSError, UnreadableLock) as error:
        raise ServiceError(str(error)) from error
    return run.run if run else None


def stop_all(home: pathlib.Path) -> list[str]:
    """Stop the processes that `start` recorded, the last one first, and wait until they and their tasks are gone;
    returns their names.

    Raises:
        ServiceError: a process does not end.
    """
    running = _running(home)
    for name, pid in reversed(running.items()):
        # Tasks have their own process groups, and the scheduler waits for them. Signalled directly, they stop their
        # programs.
        if not _ended(pid, signal.SIGTERM) and not _ended(pid, signal.SIGKILL):
            raise ServiceError(f"{name}, process {pid}, survives SIGKILL")
    (home / "processes.json").unlink(missing_ok=True)
    return list(running)


def _plan(options: list[str]) -> dict[str, Any]:
    done = subprocess.run([_BITSUM, "node", "--list", "--json", *options], capture_output=True, text=True)
    if done.returncode:
        raise ServiceError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(done.stdout)


def _environment(home: pathlib.Path, plan: dict[str, Any], port: int) -> dict[str, str]:
    """Airflow's settings, as environment variables."""
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
    # Tasks call the API server on this machine, which a proxy could not reach.
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
        raise ServiceError(f"cannot read schedule.database_file = {file!r}, or it is empty: {error}") from error


def _password(home: pathlib.Path) -> str:
    """The password of the user admin, generated at the first start. Raises: ServiceError: its file is damaged."""
    file = home / _PASSWORD_FILE
    if not file.exists():
        _write(file, json.dumps({_USER: secrets.token_urlsafe(12)}))
    try:
        return json.loads(file.read_text())[_USER]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServiceError(
            f"{file} lacks the password of {_USER}: remove it, and the next start generates a new one"
        ) from error


def _name(home: pathlib.Path) -> str:
    """The name of this installation, fixed at the first start so that it survives a new host name."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads((home / "service.json").read_text())["name"]
    return f"{socket.gethostname()}:{home}"


def _write(file: pathlib.Path, text: str, mode: int = 0o600) -> None:
    """Atomic; readable by this user only."""
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
        done = subprocess.run(
            [_AIRFLOW, *arguments],
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


def _wait(
    home: pathlib.Path, port: int, started: dict[str, subprocess.Popen], is_ready: Callable[[dict], bool]
) -> None:
    """Wait until the API server's health report satisfies `is_ready`."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        for name, program in started.items():
            if program.poll() is not None:
                raise ServiceError(f"{name} ended: {_last_line(home / f'{name}.log')} ({home / f'{name}.log'})")
        with contextlib.suppress(OSError, ValueError, KeyError):
            # Without proxies: this is a local address.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{_HOST}:{port}/api/v2/monitor/health", timeout=5) as answer:
                if is_ready(json.load(answer)):
                    return
        time.sleep(0.5)
    raise ServiceError(f"not ready after {_START_SECONDS:g} s: see {home}/*.log")


def _running(home: pathlib.Path) -> dict[str, int]:
    """{name: process id} of the processes that `start` recorded and that still run, not counting reused ids.

    Raises:
        ServiceError: the record is unreadable.
    """
    file = home / "processes.json"
    try:
        recorded = {name: (entry["pid"], entry["started"]) for name, entry in json.loads(file.read_text()).items()}
        return {name: pid for name, (pid, since) in recorded.items() if since and process(pid)["started"] == since}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServiceError(f"{file} is damaged: stop its Airflow by hand, and remove the file") from error


def _session(leader: int) -> list[psutil.Process]:
    """The living processes in the session of `leader`, itself included."""
    members = []
    for candidate in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            is_dead = candidate.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            if os.getsid(candidate.pid) == leader and not is_dead:
                members.append(candidate)
    return members


def _ended(leader: int, number: signal.Signals) -> bool:
    """Signal the session of `leader`, wait, and return whether it ended: a task may outlive the scheduler."""
    for member in _session(leader):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(number)
    deadline = time.monotonic() + _STOP_SECONDS
    # psutil's own wait counts an unreaped zombie as alive, for example in a container without an init.
    while _session(leader):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        return listener.getsockname()[1]


def _check_free(port: int) -> None:
    """Raises: ServiceError: the port is in use; its answers would be mistaken for those of our API server."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except OSError as error:
            raise ServiceError(
                f"schedule.port = {port} cannot be used on {_HOST}: {error.strerror}; 0 picks a free one"
            ) from error


def _last_line(log: pathlib.Path) -> str:
    return next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "no output")


def _print_usage(home: pathlib.Path, plan: dict[str, Any], port: int, password: str) -> None:
    dag, knobs = plan["pipeline"], plan["schedule"]
    program = shlex.quote(min(os.path.relpath(home / "airflow"), str(home / "airflow"), key=len))
    trigger = f"{program} dags trigger {dag} --conf"
    _print(
        f"Airflow is at http://{_HOST}:{port}, user {_USER}, password {password}",
        f"  DAG {dag}: http://{_HOST}:{port}/dags/{dag}",
        f"  it runs:         {_schedule(knobs)}",
        f"""  run a span:      {trigger} '{{"span": "2026-01-31"}}'""",
        f"""  ... with knobs:  {trigger} '{{"span": "2026-01-31", "set": ["train.steps=300"]}}'""",
        f"  five days:       {program} backfill create --dag-id {dag} --from-date 2026-01-01 --to-date 2026-01-05",
        f"  list runs:       {program} dags list-runs {dag}",
        f"  failures:        {plan['root']}/logs/failures.jsonl",
        "  stop it:         make airflow-stop (with the same ARGS)",
    )


def _schedule(knobs: dict[str, Any]) -> str:
    """When the DAG runs, and which runs Airflow starts at once."""
    if not knobs["cron"]:
        return "when it is triggered"
    if datetime.date.fromisoformat(knobs["start"]) > datetime.datetime.now(datetime.timezone.utc).date():
        return f"{knobs['cron']} (UTC), from {knobs['start']} on"
    missed = f"every interval since {knobs['start']}" if knobs["catchup"] else "the interval that ended last"
    return f"{knobs['cron']} (UTC); now for {missed}, unless it has run (schedule.cron= for no runs but your own)"


def _print(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
