"""`make airflow` records its processes, and `make airflow-stop` stops exactly those."""

import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.fast

_FILE = pathlib.Path(__file__).parents[2] / "airflow" / "service.py"


@pytest.fixture(scope="module")
def service():
    spec = importlib.util.spec_from_file_location("airflow_service", _FILE)
    module = importlib.util.module_from_spec(spec)
    # As a program it has its own folder on the path.
    sys.path.insert(0, str(_FILE.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(_FILE.parent))
    return module


def record(home: pathlib.Path, **processes: dict) -> None:
    (home / "processes.json").write_text(json.dumps(processes))


def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_only_recorded_processes_are_stopped_not_those_that_reuse_their_ids(service, tmp_path):
    with (
        subprocess.Popen(["sleep", "60"], start_new_session=True) as ours,
        subprocess.Popen(["sleep", "60"]) as strange,
    ):
        try:
            # Another process has the id of the API server now.
            api_server = {"pid": strange.pid, "started": "the boot before 1"}
            record(tmp_path, scheduler=service.process(ours.pid), **{"api-server": api_server})
            assert service.stop_all(tmp_path) == ["scheduler"]
            assert ours.wait(10) == -15
            assert strange.poll() is None
            assert service.stop_all(tmp_path) == []
        finally:
            strange.kill()


def test_stopping_without_a_started_process_does_nothing(service, tmp_path):
    assert service.stop_all(tmp_path) == []
    record(tmp_path, scheduler={"pid": 2**22 + 1, "started": ""})
    assert service.stop_all(tmp_path) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"scheduler": [1, "5"]}', '{"scheduler": {"pid": 1}}'])
def test_a_damaged_process_record_is_named(service, tmp_path, text):
    (tmp_path / "processes.json").write_text(text)
    with pytest.raises(service.ServiceError, match=f"^{tmp_path}/processes.json is damaged: .*$"):
        service.stop_all(tmp_path)


def test_tasks_in_their_own_process_groups_are_stopped_with_the_scheduler(service, tmp_path):
    # Like the scheduler, it waits for a task in a separate process group and forwards no signal.
    script = (
        "import os, pathlib, signal, subprocess\n"
        "task = subprocess.Popen(['sleep', '60'], preexec_fn=os.setpgrp)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path('child').write_text(f'{task.pid}\\n')\n"
        "task.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, start_new_session=True) as scheduler:
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().endswith("\n"):
            time.sleep(0.01)
        task = int((tmp_path / "child").read_text())
        assert os.getpgid(task) != os.getpgid(scheduler.pid)
        record(tmp_path, scheduler=service.process(scheduler.pid))
        assert service.stop_all(tmp_path) == ["scheduler"]
        assert ended(task) and ended(scheduler.pid)


def test_a_task_that_outlives_its_scheduler_is_killed(service, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "_STOP_SECONDS", 0.5)
    script = (
        "import pathlib, subprocess, sys\n"
        "deaf = 'import signal, time; signal.signal(signal.SIGTERM, "
        "signal.SIG_IGN); print(flush=True); time.sleep(60)'\n"
        "task = subprocess.Popen([sys.executable, '-c', deaf], stdout=subprocess.PIPE)\n"
        "task.stdout.readline()\n"
        "print(task.pid, flush=True)\n"
        "task.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as scheduler:
        task = int(scheduler.stdout.readline())
        record(tmp_path, scheduler=service.process(scheduler.pid))
        assert service.stop_all(tmp_path) == ["scheduler"]
        assert ended(task) and ended(scheduler.pid)


def test_stopping_releases_the_lock_of_its_own_run_once_its_processes_are_gone(service, tmp_path, monkeypatch, capsys):
    home = tmp_path / "airflow"
    home.mkdir()
    monkeypatch.setattr(service, "_plan", lambda options: {"root": str(tmp_path)})
    lock = tmp_path / "schedule" / "run-lock.json"
    lock.parent.mkdir()
    lock.write_text(json.dumps({"airflow": "another", "dag": "bitsum", "run": "theirs"}))
    assert service.stop([]) == 0 and lock.exists(), "an Airflow that never started here holds no lock"
    name = "the name of the host at the first start"
    (home / "service.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "port": 1, "name": name}))
    assert service.stop([]) == 0 and lock.exists(), "another Airflow holds it"
    lock.write_text(json.dumps({"airflow": name, "dag": "bitsum", "run": "ours"}))

    def stop_all(folder) -> list:
        assert folder == home and lock.exists(), "a task may still run until all processes are gone"
        return ["scheduler"]

    monkeypatch.setattr(service, "stop_all", stop_all)
    assert service.stop([]) == 0 and not lock.exists()
    assert "run ours has lost the run lock" in capsys.readouterr().out
    lock.write_text("{")
    with pytest.raises(service.ServiceError, match="does not name the run that holds the lock"):
        service.stop([])


def test_a_port_in_use_is_refused(service):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(
            service.ServiceError, match=f"schedule.port = {taken.getsockname()[1]} cannot be used on 127.0.0.1: Address"
        ):
            service._check_free(taken.getsockname()[1])
    service._check_free(service._free_port())


def test_the_password_is_generated_once_and_readable_by_its_owner_only(service, tmp_path):
    plan = {"schedule": {"parallelism": 2, "database_file": ""}}
    password = service._password(tmp_path)
    assert service._password(tmp_path) == password and len(password) >= 16
    first = service._environment(tmp_path, plan, 1)
    assert service._environment(tmp_path, plan, 1) == first
    assert first["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert (tmp_path / "password.json").stat().st_mode & 0o777 == 0o600
    service._write_program(tmp_path / "airflow", first)
    assert (tmp_path / "airflow").stat().st_mode & 0o777 == 0o700
    (tmp_path / "password.json").write_text("{")
    with pytest.raises(service.ServiceError, match=r"password\.json lacks the password of admin: remove it"):
        service._password(tmp_path)


def test_the_database_url_is_read_from_a_file(service, tmp_path):
    file = tmp_path / "database"
    file.write_text("postgresql+psycopg2://airflow:secret@127.0.0.1/airflow\n")
    assert service._database(tmp_path, str(file)) == "postgresql+psycopg2://airflow:secret@127.0.0.1/airflow"
    with pytest.raises(service.ServiceError, match="database_file"):
        service._database(tmp_path, str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("cron", "start", "catchup", "told"),
    [
        ("", "2026-01-01", True, "when it is triggered"),
        ("@daily", "2026-01-01", False, "@daily (UTC); now for the interval that ended last, unless it has run"),
        ("0 6 * * *", "2026-01-01", True, "0 6 * * * (UTC); now for every interval since 2026-01-01, unless"),
        ("@daily", "9999-01-01", True, "@daily (UTC), from 9999-01-01 on"),
    ],
)
def test_runs_that_airflow_starts_at_once_are_announced(service, cron, start, catchup, told):
    assert service._schedule({"cron": cron, "start": start, "catchup": catchup}).startswith(told)


def test_an_error_of_bitsum_is_one_line(service, tmp_path, monkeypatch):
    program = tmp_path / "bitsum"
    program.write_text("#!/bin/sh\necho noise >&2\necho 'bitsum: schedule.start = 5: wrong' >&2\nexit 2\n")
    os.chmod(program, 0o755)
    monkeypatch.setattr(service, "_BITSUM", program)
    with pytest.raises(service.ServiceError, match=r"^bitsum: schedule.start = 5: wrong$"):
        service._plan([])
