"""Three spans under a real scheduler: a good one, a poisoned one, and one whose model is trained too short."""

import random

import pytest

from components.savedmodel import version_folder

pytestmark = pytest.mark.airflow

DAYS = ("2026-03-01", "2026-03-02", "2026-03-03")
RUNS = tuple(f"day-{day}" for day in DAYS)
_SECONDS = 1200.0


def poison(source, day: str) -> None:
    """A user's span with one wrong sum."""
    folder = source / f"span-{day}"
    folder.mkdir(parents=True)
    generator = random.Random(0)
    pairs = [(generator.getrandbits(8), generator.getrandbits(8)) for _ in range(2000)]
    lines = [f"{a},{b},{a + b}" for a, b in pairs]
    a, b = pairs[0]
    lines[0] = f"{a},{b},{a + b + 1}"
    (folder / "pairs.csv").write_text("\n".join(["a,b,sum", *lines]) + "\n")


def test_a_good_span_is_served_a_poisoned_one_and_a_worse_model_change_nothing(story, tmp_path):
    airflow, first_version = story.airflow, story.served()
    poison(tmp_path, DAYS[1])
    knobs = ([], [f"spans.source={tmp_path}"], ["train.steps=30", "train.warm_start=false"])
    for run, day, settings in zip(RUNS, DAYS, knobs, strict=True):
        airflow.trigger(run, f"{day}T00:00:00Z", {"set": settings})

    assert airflow.wait(RUNS[0], _SECONDS) == "success", (airflow.states(RUNS[0]), story.failures_of(RUNS[0]))
    second_version = story.served()
    assert second_version > first_version
    assert airflow.states(RUNS[0])["rollout"] == "success"
    assert story.failures_of(RUNS[0]) == []

    assert airflow.wait(RUNS[1], _SECONDS) == "failed"
    [failure] = story.failures_of(RUNS[1])
    assert (failure["task"], failure["gate"], failure["refused"]) == ("BitstringExampleGen", "import", True), failure
    assert f"span {DAYS[1]} in " in failure["reason"] and "pairs.csv line 2: wrong sum" in failure["reason"]
    tasks = airflow.tasks(RUNS[1])
    assert tasks["BitstringExampleGen"]["try_number"] == 1, "a gate that refuses is not tried again"
    assert {tasks[name]["state"] for name in ("Trainer", "Pusher", "verdict", "rollout")} == {"upstream_failed"}
    assert tasks["release_lock"]["state"] == "success"
    assert story.served() == second_version

    assert airflow.wait(RUNS[2], _SECONDS) == "failed"
    [failure] = story.failures_of(RUNS[2])
    assert (failure["task"], failure["gate"]) == ("verdict", "evaluation"), failure
    assert "exact_match" in failure["reason"]
    tasks = airflow.tasks(RUNS[2])
    assert [tasks[name]["state"] for name in ("Pusher", "verdict", "rollout")] == [
        "success",
        "failed",
        "upstream_failed",
    ]
    assert tasks["verdict"]["try_number"] == 1
    assert story.served() == second_version
    assert version_folder.versions(story.root / "serving" / "bitsum") == [first_version, second_version]

    through = 0.0
    for run in RUNS:
        worked = airflow.worked(run).values()
        assert min(start for start, _ in worked) > through, f"{run} began before the run before it was done"
        through = max(end for _, end in worked)
