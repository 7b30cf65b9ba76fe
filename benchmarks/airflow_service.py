"""A separate Airflow for a measurement or a test, started as by `make airflow` and queried as by its web page."""

import contextlib
import datetime
import json
import pathlib
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

TOP = pathlib.Path(__file__).parents[1]
PYTHON = TOP / ".uv/airflow/bin/python"
DAG = "bitsum"
UNFINISHED = ("queued", "running")
_POLL_SECONDS = 1.0
_PAGE = 100


class Airflow:
    """The REST API of the Airflow with files in `home`."""

    def __init__(self, home: pathlib.Path):
        self.home = home
        self._url = json.loads((home / "service.json").read_text())["url"]
        password = json.loads((home / "password.json").read_text())["admin"]
        self._token = self._call("/auth/token", {"username": "admin", "password": password})["access_token"]

    _token = ""

    def _call(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> dict[str, Any]:
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {self._token}"} if self._token else {}),
        }
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode() if body is not None else None, headers, method=method
        )
        # Without the environment's proxies: the server is local.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)

    def command(self, *arguments: str) -> str:
        """The output of Airflow's command line. Raises: CalledProcessError."""
        return subprocess.run([self.home / "airflow", *arguments], check=True, capture_output=True, text=True).stdout

    def trigger(self, run: str, logical_date: str | None, conf: dict[str, Any]) -> None:
        """Start a run manually."""
        self._call(f"/api/v2/dags/{DAG}/dagRuns", {"dag_run_id": run, "logical_date": logical_date, "conf": conf})

    def mark(self, run: str, state: str) -> None:
        """Mark a run as failed or successful, as a user does."""
        self._call(f"/api/v2/dags/{DAG}/dagRuns/{run}", {"state": state}, "PATCH")

    def state(self, run: str) -> str:
        """The state of a run."""
        return self._call(f"/api/v2/dags/{DAG}/dagRuns/{run}")["state"]

    def parse_seconds(self) -> float:
        """The duration of the last parse of the DAG file."""
        return self._call(f"/api/v2/dags/{DAG}")["last_parse_duration"]

    def runs(self) -> dict[str, str]:
        """{run: state}, ordered by logical date."""
        found = self._call(f"/api/v2/dags/{DAG}/dagRuns?limit={_PAGE}&order_by=logical_date")["dag_runs"]
        return {run["dag_run_id"]: run["state"] for run in found}

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        """{task: its instance} of a run."""
        found = self._call(f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances?limit={_PAGE}")["task_instances"]
        return {task["task_id"]: task for task in found}

    def states(self, run: str) -> dict[str, str]:
        """{task: its state} of a run."""
        return {name: task["state"] for name, task in self.tasks(run).items()}

    def worked(self, run: str) -> dict[str, tuple[float, float]]:
        """{task: (start, end)}, in seconds since 1970, of the tasks of a run that did more than wait for the
        run lock."""
        return {
            name: (_moment(task["start_date"]), _moment(task["end_date"]))
            for name, task in self.tasks(run).items()
            if name not in ("acquire_lock", "outcome") and task["state"] in ("success", "failed") and task["start_date"]
        }

    def wait(self, run: str, seconds: float) -> str:
        """The final state of a run. Raises: TimeoutError."""
        end = time.monotonic() + seconds
        while (state := self.state(run)) in UNFINISHED:
            if time.monotonic() > end:
                raise TimeoutError(f"{run} is not done after {seconds:g} s: {self.states(run)}")
            time.sleep(_POLL_SECONDS)
        return state


@contextlib.contextmanager
def started(root: pathlib.Path, knobs: Sequence[str]) -> Iterator[Airflow]:
    """Airflow for the pipeline in `root`, on a free port; it starts runs only on request, unless `knobs`
    sets another schedule.

    Raises:
        RuntimeError: it did not start or stop; the text is its output.
    """
    service("start", options(root, knobs))
    try:
        yield Airflow(root / "airflow")
    finally:
        service("stop", options(root, knobs))


def options(root: pathlib.Path, knobs: Sequence[str]) -> list[str]:
    """The arguments of `service` for the pipeline in `root`."""
    return [
        word
        for knob in ("schedule.cron=", "schedule.port=0", *knobs, f"pipeline.root={root}")
        for word in ("--set", knob)
    ]


def service(action: str, options: Sequence[str]) -> str:
    """The output of `make airflow` (start) or `make airflow-stop` (stop). Raises: RuntimeError."""
    if not PYTHON.exists():
        raise RuntimeError("Airflow has an environment of its own: requirements/install-airflow.sh makes it")
    done = subprocess.run([PYTHON, TOP / "airflow/service.py", action, *options], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def _moment(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
