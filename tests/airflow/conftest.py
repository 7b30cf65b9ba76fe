"""A real Airflow on temporary folders and ports, with a model server beside it and a listener on its
webhook."""

import contextlib
import http.server
import json
import pathlib
import threading

import pytest

from benchmarks import airflow_service
from pipeline import workspace
from serving.client import AdderClient
from tests.pipeline.conftest import SMALL
from tests.serving.conftest import serving
from tests.support import certified_model, postgresql_server


class Story:
    """The folder of a pipeline, its Airflow, its model server, and the requests to its webhook."""

    def __init__(self, root: pathlib.Path, airflow: airflow_service.Airflow, failures: list[dict], target: str = ""):
        self.root, self.airflow, self._failures, self._target = root, airflow, failures, target

    def served(self) -> int:
        """The served version, whose answers are right."""
        with AdderClient(self._target, label="stable") as client:
            assert client.add(2**100 - 1, 1) == 2**100
            return client.metadata().version

    def failures_of(self, run: str) -> list[dict]:
        return [failure for failure in self._failures if failure["run"] == run]


@contextlib.contextmanager
def _listening(failures: list[dict], folder: pathlib.Path):
    """Listen for failures; the knob that names the webhook."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            failures.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *unused) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / "webhook").write_text(f"http://127.0.0.1:{server.server_port}/failures\n")
        yield f"schedule.webhook_file={folder / 'webhook'}"
        server.shutdown()


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """On SQLite, with a served model that each new version is rolled out on."""
    folder = tmp_path_factory.mktemp("airflow")
    root, failures = folder / "var", []
    workspace.prepare(root)
    certified_model.push(root / "serving" / "bitsum", 1)
    models = root / "serving" / "models.config"
    with (
        _listening(failures, folder) as webhook,
        serving(root / "serving" / "bitsum", f"--model_config_file={models}") as server,
    ):
        rollout = (
            f"schedule.rollout_server={server.target}",
            f"schedule.rollout_config_file={models}",
            'schedule.rollout_options=["--max_latency_ratio=1000"]',
        )
        with airflow_service.started(root, (*SMALL, webhook, *rollout)) as airflow:
            yield Story(root, airflow, failures, server.target)


@pytest.fixture(scope="module")
def on_postgresql(tmp_path_factory):
    """Airflow's database and the metadata store both on one PostgreSQL, and no model server."""
    folder, failures = tmp_path_factory.mktemp("airflow-postgresql"), []
    with postgresql_server.running() as database, _listening(failures, folder) as webhook:
        database.query("postgres", "CREATE DATABASE airflow")
        (folder / "url").write_text(database.url("airflow") + "\n")
        knobs = (
            *SMALL,
            *database.settings("metadata.database=bitsum"),
            webhook,
            f"schedule.database_file={folder / 'url'}",
            "schedule.retries=1",
            "schedule.retry_delay=1",
        )
        with airflow_service.started(folder / "var", knobs) as airflow:
            yield Story(folder / "var", airflow, failures), database
