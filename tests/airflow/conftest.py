"""A real Airflow on temporary folders and ports, with a model server beside it and somebody who listens to its webhook."""

import contextlib
import http.server
import json
import pathlib
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from benchmarks import certified_model
from pipeline import home
from serving.client import AdderClient
from tests.pipeline.conftest import SMALL
from tests.serving.conftest import serving

TOP = pathlib.Path(__file__).parents[2]
PYTHON = TOP / ".uv/airflow/bin/python"
_POLL_SECONDS = 1.0


class Airflow:
    """Airflow's REST API, as its page uses it."""

    def __init__(self, folder: pathlib.Path, port: int):
        self._url = f"http://127.0.0.1:{port}"
        password = json.loads((folder / "password.json").read_text())["admin"]
        self._token = self._call("/auth/token", {"username": "admin", "password": password})["access_token"]

    _token = ""

    def _call(self, path: str, body: dict | None = None) -> dict:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self._token}"} if self._token else {})}
        request = urllib.request.Request(self._url + path, json.dumps(body).encode() if body is not None else None, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def trigger(self, run: str, logical_date: str | None, conf: dict) -> None:
        self._call("/api/v2/dags/bitsum/dagRuns", {"dag_run_id": run, "logical_date": logical_date, "conf": conf})

    def state(self, run: str) -> str:
        return self._call(f"/api/v2/dags/bitsum/dagRuns/{run}")["state"]

    def tasks(self, run: str) -> dict[str, dict]:
        """{task: its instance} of a run."""
        return {task["task_id"]: task for task in self._call(f"/api/v2/dags/bitsum/dagRuns/{run}/taskInstances")["task_instances"]}

    def wait(self, run: str, seconds: float) -> str:
        """How a run ended."""
        end = time.monotonic() + seconds
        while (state := self.state(run)) in ("queued", "running"):
            assert time.monotonic() < end, f"{run} is not done after {seconds:g} s: {self.states(run)}"
            time.sleep(_POLL_SECONDS)
        return state

    def states(self, run: str) -> dict[str, str]:
        return {name: task["state"] for name, task in self.tasks(run).items()}


class Story:
    """The folder of a pipeline, its Airflow, its model server, and what the webhook was told."""

    def __init__(self, root: pathlib.Path, airflow: Airflow, target: str, told: list[dict]):
        self.root, self.airflow, self._target, self._told = root, airflow, target, told

    def served(self) -> int:
        """The version that answers, and answers right."""
        with AdderClient(self._target, label="stable") as client:
            assert client.add(2**100 - 1, 1) == 2**100
            return client.metadata().version

    def told_of(self, run: str) -> list[dict]:
        return [failure for failure in self._told if failure["run"] == run]


@contextlib.contextmanager
def _listening(told: list[dict]):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *unused) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/failures"
        server.shutdown()


def service(action: str, options: list[str]) -> str:
    """What `make airflow` and `make airflow-stop` say."""
    assert PYTHON.exists(), "Airflow has an environment of its own: make airflow-test sets it up"
    done = subprocess.run([PYTHON, TOP / "airflow/service.py", action, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("airflow")
    root, told = folder / "var", []
    home.prepare(root)
    certified_model.push(root / "serving" / "bitsum", 1)
    models = root / "serving" / "models.config"
    with _listening(told) as url, serving(root / "serving" / "bitsum", f"--model_config_file={models}") as server:
        (folder / "webhook").write_text(url + "\n")
        knobs = (
            *SMALL, f"pipeline.root={root}", "schedule.cron=", "schedule.port=0", "schedule.retries=1", "schedule.retry_delay=1",
            f"schedule.webhook_file={folder / 'webhook'}", f"schedule.rollout_server={server.target}",
            f"schedule.rollout_config_file={models}", 'schedule.rollout_options=["--max_latency_ratio=1000"]',
        )  # fmt: skip
        options = [word for knob in knobs for word in ("--set", knob)]
        print(service("start", options))
        try:
            port = int(json.loads((root / "airflow" / "service.json").read_text())["port"])
            yield Story(root, Airflow(root / "airflow", port), server.target, told)
        finally:
            service("stop", options)
