"""A real Airflow whose database and metadata are on a PostgreSQL that these tests install: failures and
retries."""

import json

import pytest

from benchmarks import airflow_service

pytestmark = pytest.mark.airflow


def test_a_run_without_span_and_date_fails_at_once(on_postgresql):
    story, _ = on_postgresql
    story.airflow.trigger("nothing", None, {})
    assert story.airflow.wait("nothing", 300) == "failed"
    [failure] = story.failures_of("nothing")
    assert failure["task"] == "acquire_lock" and "parameter span" in failure["reason"] and not failure["refused"]


def test_a_failed_node_is_retried(on_postgresql, tmp_path):
    """The span has no folder yet, as with late data."""
    story, database = on_postgresql
    story.airflow.trigger("late", None, {"span": 7, "set": [f"spans.source={tmp_path}"]})
    assert story.airflow.wait("late", 300) == "failed"
    tasks = story.airflow.tasks("late")
    assert (tasks["BitstringExampleGen"]["try_number"], tasks["ImportSchemaGen"]["try_number"]) == (2, 1)
    [failure] = story.failures_of("late")
    assert (failure["task"], failure["gate"], failure["refused"]) == ("BitstringExampleGen", "", False)
    assert "span 7 does not exist" in failure["reason"]
    assert not (story.root / "schedule" / "run-lock.json").exists(), "the next run may begin"

    # Both are in the database, and nowhere else.
    assert database.query("airflow", "SELECT state FROM dag_run ORDER BY run_id") == ["failed", "failed"]
    assert database.query(
        "bitsum", "SELECT count(*) FROM information_schema.tables WHERE table_name = 'execution'"
    ) == ["1"]
    assert not list(story.root.rglob("*.sqlite"))


def test_a_run_marked_as_failed_is_failed_and_reported(on_postgresql, tmp_path):
    story, _ = on_postgresql
    story.airflow.trigger("marked", None, {"span": 8, "set": [f"spans.source={tmp_path}"]})
    while story.airflow.states("marked").get("acquire_lock") != "success":
        assert story.airflow.state("marked") in airflow_service.UNFINISHED
    story.airflow.mark("marked", "failed")
    assert story.airflow.wait("marked", 300) == "failed"
    assert any("a user ended the run" in failure["reason"] for failure in story.failures_of("marked"))


def test_failures_are_in_the_log_file(on_postgresql):
    story, _ = on_postgresql
    lines = (story.root / "logs" / "failures.jsonl").read_text().splitlines()
    assert {json.loads(line)["run"] for line in lines} == {"nothing", "late", "marked"}
