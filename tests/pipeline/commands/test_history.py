"""`bitsum history`: one line per run, with the verdict of every gate and the change of the margin."""

import json

import pytest

from pipeline import cli
from pipeline.records import ownership
from tests.support import json_tables
from tests.support.metadata_stores import FAILED, RUNNING


def history(store, capfd, *options):
    assert cli.main(["history", *store.settings, *options]) == 0
    return capfd.readouterr().out.splitlines()


def rows(store, capfd, *options):
    [line] = history(store, capfd, "--json", *options)
    found = json.loads(line)
    json_tables.check("bitsum history", found)
    return found["runs"]


def test_every_run_has_a_line_with_the_verdicts_and_the_margin(store, capfd):
    store.run("monday", span=1, version=7, margin=4.0)
    store.run("tuesday", span=2, exact=0.5, margin=None)
    store.run("wednesday", span=3, version=9, margin=4.5)
    store.run("thursday", span=4, margin=None)
    found = rows(store, capfd)
    assert [(row["run"], row["span"], row["state"], row["version"]) for row in found] == [
        ("monday", 1, "done", 7),
        ("tuesday", 2, "refused", 0),
        ("wednesday", 3, "done", 9),
        ("thursday", 4, "refused", 0),
    ]
    assert [(row["margin"], row["change"]) for row in found] == [(4.0, None), (None, None), (4.5, 0.5), (None, None)]
    assert found[1]["gates"] == {
        "data": "passed",
        "evaluation": "REFUSED",
        "proof": "REFUSED",
        "infra validation": "blessed",
    }
    assert found[1]["reasons"]["evaluation"] == "length 8: exact_match is 0.5"
    assert (found[3]["gates"]["evaluation"], found[3]["gates"]["proof"]) == ("blessed", "REFUSED")
    lines = history(store, capfd)
    assert len(lines) == 6 and lines[0].split()[:2] == ["run", "span"]
    assert "+0.5" in lines[3].split() and "REFUSED" in lines[2]
    assert lines[-1] == "certified margin: first 4, last 4.5, least 4, most 4.5, of 2 models"


def test_the_last_runs_include_the_change_to_the_run_before(store, capfd):
    store.run("monday", version=7, margin=4.0)
    store.run("tuesday", exact=0.5, margin=None)
    store.run("wednesday", version=9, margin=3.0)
    [row] = rows(store, capfd, "--last", "1")
    assert (row["run"], row["change"]) == ("wednesday", -1.0)
    assert [row["run"] for row in rows(store, capfd, "--last", "0")] == ["monday", "tuesday", "wednesday"]


def test_the_state_of_a_run(store, capfd):
    gone = {**ownership.owner(), ownership.STARTED: "0f7d 17"}
    store.execution("killed", "Trainer", {}, {}, RUNNING, **gone)
    store.execution("running", "Trainer", {}, {}, RUNNING, **ownership.owner())
    store.execution("failed", "Trainer", {}, {}, FAILED)
    store.execution("bad data", "DataGate", {}, {}, FAILED, refused_because="3 + 3 = 7")
    store.execution("bad lines", "BitstringExampleGen", {}, {}, FAILED, refused_because="line 2", data='{"span": 7}')
    store.execution("full disk", "DataGate", {}, {}, FAILED)
    store.execution("earlier span", "Pusher", {}, {}, FAILED, refused_because="span 1 is earlier")
    store.execution("between", "BitstringExampleGen", {}, {"examples": {}})
    expected = [
        "killed at Trainer",
        "running Trainer",
        "failed at Trainer",
        "refused",
        "refused",
        "failed at DataGate",
        "refused",
        "unfinished",
    ]
    found = rows(store, capfd)
    assert [row["state"] for row in found] == expected
    assert [row["gates"]["data"] for row in found] == ["-", "-", "-", "REFUSED", "REFUSED", "-", "-", "-"]
    assert [row["reasons"] for row in found[4:8]] == [{"data": "line 2"}, {}, {"push": "span 1 is earlier"}, {}]
    assert found[4]["span"] == 7
    # Reading changes nothing; the next start closes it, and the line stays the same.
    assert ownership.close_abandoned(store.client) and [row["state"] for row in rows(store, capfd)] == expected


def test_a_run_that_pushed_nothing_new_says_so(store, capfd):
    first = store.run("monday", version=7)
    again = {"pushed": 1, "is_new": 0, "pushed_version": "7", "pushed_destination": "x"}
    store.cached("tuesday", "Trainer", {}, {"model": first["model"]})
    store.execution("tuesday", "Pusher", {"model": first["model"]}, {"pushed_model": again})
    row = rows(store, capfd)[1]
    assert (row["version"], row["is_new"], row["cached"], row["steps"], row["state"]) == (7, False, 1, 2, "done")


def test_removed_evaluations_are_tolerated(store, capfd):
    for run in ("monday", "tuesday", "wednesday"):
        store.run(run, exact=0.5)
    assert cli.main(["gc", *store.settings, "--keep", "1", "--delete"]) == 0
    capfd.readouterr()
    assert [row["reasons"]["evaluation"] for row in rows(store, capfd)] == [
        "its metrics no longer exist",
        "its metrics no longer exist",
        "length 8: exact_match is 0.5",
    ]


def test_bad_options_and_no_store(store, tmp_path, capfd):
    assert cli.main(["history", *store.settings, "--last", "-1"]) == 2
    assert cli.main(["history", "--set", f"pipeline.root={tmp_path / 'no'}"]) == 1
    assert "does not exist: bitsum run creates it" in capfd.readouterr().err


def test_a_span_is_shown_as_it_was_given(store, capfd):
    for run, data in (("by date", '{"span": "2026-11-22"}'), ("by number", '{"span": 20779}')):
        store.execution(run, "BitstringExampleGen", {}, {}, FAILED, refused_because="line 2", data=data)
    assert [(row["span"], row["date"]) for row in rows(store, capfd)] == [(20779, "2026-11-22"), (20779, "")]
    lines = history(store, capfd)
    assert lines[1].startswith("by date    2026-11-22  ") and lines[2].startswith("by number  20779       ")


@pytest.mark.parametrize("data", ["{", "[]", '{"span": "x"}', "{}"])
def test_unreadable_knobs_are_tolerated(store, capfd, data):
    store.run("monday", span=5)
    changed = [found for found in store.client.get_executions() if "data" in found.custom_properties]
    assert changed
    for execution in changed:
        execution.custom_properties["data"].string_value = data
    store.client.put_executions(changed)
    [row] = rows(store, capfd)
    assert (row["run"], row["span"]) == ("monday", 5)
