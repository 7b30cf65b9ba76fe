"""Three spans under a real scheduler: a good one, a poisoned one, and one whose model is trained too short."""

import datetime
import random

from components import version_folder

DAYS = ("2026-03-01", "2026-03-02", "2026-03-03")
RUNS = tuple(f"day-{day}" for day in DAYS)
_SECONDS = 1200.0


def poison(source, day: str) -> None:
    """A span of the user's own in which one sum is wrong."""
    folder = source / f"span-{day}"
    folder.mkdir(parents=True)
    generator = random.Random(0)
    pairs = [(generator.getrandbits(8), generator.getrandbits(8)) for _ in range(2000)]
    lines = [f"{a},{b},{a + b}" for a, b in pairs]
    a, b = pairs[0]
    lines[0] = f"{a},{b},{a + b + 1}"
    (folder / "pairs.csv").write_text("\n".join(["a,b,sum", *lines]) + "\n")


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def test_a_good_span_is_served_a_poisoned_one_and_a_worse_model_change_nothing(story, tmp_path):
    airflow, first_version = story.airflow, story.served()
    poison(tmp_path, DAYS[1])
    knobs = ([], [f"spans.source={tmp_path}"], ["train.steps=30", "train.warm_start=false"])
    for run, day, settings in zip(RUNS, DAYS, knobs):
        airflow.trigger(run, f"{day}T00:00:00Z", {"set": settings})

    assert airflow.wait(RUNS[0], _SECONDS) == "success", (airflow.states(RUNS[0]), story.told_of(RUNS[0]))
    second_version = story.served()
    assert second_version > first_version
    assert airflow.states(RUNS[0])["rollout"] == "success"
    assert story.told_of(RUNS[0]) == []

    assert airflow.wait(RUNS[1], _SECONDS) == "failed"
    [told] = story.told_of(RUNS[1])
    assert (told["task"], told["gate"], told["refused"]) == ("BitstringExampleGen", "import", True), told
    assert "pairs.csv line 2: wrong sum" in told["reason"]
    tasks = airflow.tasks(RUNS[1])
    assert tasks["BitstringExampleGen"]["try_number"] == 1, "a gate that refuses is not tried again"
    assert {tasks[name]["state"] for name in ("Trainer", "Pusher", "verdict", "rollout")} == {"upstream_failed"}
    assert tasks["give_back_turn"]["state"] == "success"
    assert story.served() == second_version

    assert airflow.wait(RUNS[2], _SECONDS) == "failed"
    [told] = story.told_of(RUNS[2])
    assert (told["task"], told["gate"]) == ("verdict", "evaluation"), told
    assert "exact_match" in told["reason"]
    tasks = airflow.tasks(RUNS[2])
    assert [tasks[name]["state"] for name in ("Pusher", "verdict", "rollout")] == ["success", "failed", "upstream_failed"]
    assert tasks["verdict"]["try_number"] == 1
    assert story.served() == second_version
    assert version_folder.versions(story.root / "serving" / "bitsum") == [first_version, second_version]

    one_after_the_other(airflow)


def one_after_the_other(airflow) -> None:
    """No task of a run but the waiting ones began before the run of the day before was through with all of its own."""
    through = None
    for run in RUNS:
        worked = [task for name, task in airflow.tasks(run).items() if name != "take_turn" and task["start_date"] and task["end_date"]]
        began = min(moment(task["start_date"]) for task in worked if task["state"] != "upstream_failed")
        assert through is None or began > through, f"{run} began before the run before it was done"
        through = max(moment(task["end_date"]) for task in worked if task["state"] != "upstream_failed")


def test_a_run_with_neither_span_nor_date_fails_at_once_and_says_what_it_needs(story):
    story.airflow.trigger("nothing", None, {})
    assert story.airflow.wait("nothing", 300) == "failed"
    [told] = story.told_of("nothing")
    assert told["task"] == "take_turn" and "parameter span" in told["reason"] and not told["refused"]


def test_a_machine_that_fails_is_tried_again(story):
    """The span is in no folder yet, as when the data come late."""
    story.airflow.trigger("late", None, {"span": 7, "set": ["spans.source=/nowhere"]})
    assert story.airflow.wait("late", 600) == "failed"
    assert {task["try_number"] for name, task in story.airflow.tasks("late").items() if name == "ImportSchemaGen"} == {2}
    assert any("/nowhere" in told["reason"] and not told["refused"] for told in story.told_of("late"))
