"""A span earlier than that of the newest version, triggered by hand: refused by the run's first task, unless that
is allowed."""

import pytest

from benchmarks import airflow_service
from components.savedmodel import version_folder

pytestmark = pytest.mark.airflow


def test_an_older_span_is_refused_before_any_work_and_not_retried(story, tmp_path):
    served = story.root / "serving" / "bitsum"
    [first] = version_folder.versions(served)
    manifest = version_folder.manifest(served / str(first))
    newest = version_folder.push(
        served / str(first), served, "the model of span 5", manifest["origin"] | {"span": 5}
    ).version

    story.airflow.trigger("older", None, {"span": 4})
    assert story.airflow.wait("older", 300) == "failed"
    [failure] = story.failures_of("older")
    assert (failure["task"], failure["gate"], failure["refused"]) == ("check", "push", True)
    assert "span 4 is earlier than span 5 of version" in failure["reason"] and str(newest) in failure["reason"]
    tasks = story.airflow.tasks("older")
    assert tasks["check"]["try_number"] == 1
    assert {tasks[name]["state"] for name in ("BitstringExampleGen", "ImportSchemaGen", "Pusher", "verdict")} == {
        "upstream_failed"
    }
    assert tasks["release_lock"]["state"] == "success"
    assert not (story.root / "artifacts").exists()

    # If allowed, the run continues to the nodes; here the span has no folder.
    story.airflow.trigger("allowed", None, {"span": 4, "allow_older": True, "set": [f"spans.source={tmp_path}"]})
    while story.airflow.states("allowed").get("check") != "success":
        assert story.airflow.state("allowed") in airflow_service.UNFINISHED
    story.airflow.mark("allowed", "failed")
    assert story.airflow.wait("allowed", 300) == "failed"
