"""A real Airflow is stopped while a run trains: other commands can then use the folder, and the run resumes after the
next start."""

import dataclasses
import json
import re

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from benchmarks import airflow_service
from components import processes
from pipeline import cli
from pipeline import config as configuration
from pipeline.records.metadata_store import open_store
from pipeline.root_lock import RUN_LOCK
from tests.pipeline.conftest import SMALL
from tests.support.waiting import wait_for

pytestmark = pytest.mark.airflow

_SECONDS = 1200.0


def test_a_stopped_run_releases_its_lock_and_acquires_it_again(tmp_path):
    root, knobs = tmp_path / "var", (*SMALL, "schedule.retry_delay=1")
    lock, settings = root / RUN_LOCK, [word for knob in (f"pipeline.root={root}", *SMALL) for word in ("--set", knob)]
    with airflow_service.started(root, knobs) as airflow:
        airflow.trigger("stopped", None, {"span": 3})
        wait_for(lambda: list((root / "artifacts" / "Trainer").glob("model/*")), _SECONDS)
        first = json.loads(lock.read_text())
        assert first["run"] == "stopped" and first["pid"] == _scheduler(root)
        keys = root / "airflow" / "airflow.cfg"
        assert keys.stat().st_mode & 0o777 == 0o600
        assert len(set(re.findall(r"^(?:fernet_key|secret_key|jwt_secret) = \S{22,}$", keys.read_text(), re.M))) == 3

        assert "run stopped has lost the run lock" in airflow_service.service(
            "stop", airflow_service.options(root, knobs)
        )
        assert not lock.exists()
        assert cli.main(["gc", "--delete", *settings, "--set", "pipeline.lock_timeout=30"]) == 0

        # Another Airflow works here now; this process stands for its scheduler.
        lock.write_text(
            json.dumps({"airflow": "another", "dag": "bitsum", "run": "theirs", **dataclasses.asdict(processes.this())})
        )
        airflow_service.service("start", airflow_service.options(root, knobs))
        airflow = airflow_service.Airflow(root / "airflow")
        wait_for(lambda: "up_for_reschedule" in airflow.states("stopped").values(), _SECONDS)
        lock.unlink()
        wait_for(lock.exists, _SECONDS)
        again = json.loads(lock.read_text())
        assert again["run"] == "stopped" and again["pid"] == _scheduler(root) != first["pid"]
        assert airflow.wait("stopped", _SECONDS) == "success", airflow.states("stopped")
        assert not lock.exists()
        tries = {name: task["try_number"] for name, task in airflow.tasks("stopped").items()}
        assert tries["acquire_lock"] == 1 and max(tries.values()) > 1, tries
        executions = open_store(configuration.load(None, [f"pipeline.root={root}"])).get_executions()
        assert mlmd.Execution.RUNNING not in [execution.last_known_state for execution in executions]


def _scheduler(root) -> int:
    return json.loads((root / "airflow" / "processes.json").read_text())["scheduler"]["pid"]
