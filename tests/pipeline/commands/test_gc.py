"""`bitsum gc` removes artifacts that are not ancestors of any kept model, and nothing else."""

import json
import os
import pathlib

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.errors import BitsumError
from pipeline import cli
from pipeline.records import garbage, ownership
from pipeline.records.lineage_graph import LineageGraph
from serving import model_config
from tests.support import json_tables
from tests.support.metadata_stores import COMPLETE, FAILED, RUNNING

# The parts of a span that later runs train on: examples, statistics, anomalies and the blessing.
CHECKED_DATA = ("BitstringExampleGen", "StatisticsGen", "ArithmeticValidator", "ExampleValidator", "DataGate")


def gc(store, *options):
    return cli.main(["gc", *store.settings, "--set", "spans.window=1", *options])


def there(store):
    """The folders of artifacts, as node/key/id."""
    top = store.root / "artifacts"
    return {path.relative_to(top).as_posix() for path in top.glob("*/*/*")}


def of(store, run):
    """The outputs of a run's executions."""
    lineage = LineageGraph(store.client)
    links = [link for execution in lineage.executions_of(run) for link in lineage.outputs(execution)]
    return {
        pathlib.Path(lineage.artifacts[link.artifact].uri).relative_to(store.root / "artifacts").as_posix()
        for link in links
    }


def test_a_dry_run_changes_nothing(store, capsys):
    for run in ("first", "second", "third"):
        store.run(run, exact=0.5)
    before = there(store)
    assert gc(store, "--keep", "1") == 0
    output = capsys.readouterr().out
    assert there(store) == before
    assert "28 folders" in output.splitlines()[-1] and "--delete" in output
    assert gc(store, "--keep", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    json_tables.check("bitsum gc", found)
    assert (len(found["folders"]), found["deleted"]) == (28, False)
    assert found["size"] == sum(folder["size"] for folder in found["folders"])
    assert {artifact.state for artifact in store.client.get_artifacts()} == {mlmd.Artifact.LIVE}


def test_refused_runs_are_removed_and_the_last_ones_stay(store):
    for run in ("first", "second", "third"):
        store.run(run, exact=0.5)
    assert gc(store, "--keep", "2", "--delete") == 0
    assert there(store) == of(store, "second") | of(store, "third")
    gone = {artifact.uri for artifact in store.client.get_artifacts() if artifact.state == mlmd.Artifact.DELETED}
    assert len(gone) == 14 and not any(map(os.path.exists, gone))


def test_ancestors_of_a_blessed_model_stay(store):
    first = store.run("first", span=1, version=7)
    store.run("refused", span=2, exact=0.5, base=first["model"])
    second = store.run("second", span=3, version=8, base=first["model"])
    for number in range(3):
        store.run(f"later {number}", span=4 + number, margin=None, base=second["model"])
    assert gc(store, "--keep", "1", "--delete") == 0
    assert there(store) == of(store, "first") | of(store, "second") | of(store, "later 2")


def test_an_unblessed_base_of_a_blessed_model_stays(store):
    """A user may start from any model: its descendants still need its data."""
    first = store.run("first", span=1, exact=0.5)
    store.run("second", span=2, version=8, base=first["model"])
    store.run("third", span=3, exact=0.5)
    assert gc(store, "--keep", "1", "--delete") == 0
    kept = {"examples", "model", "schema"}
    assert {path for path in of(store, "first") if path.split("/")[1] in kept} <= there(store)
    assert not {path for path in of(store, "first") if path.split("/")[1] not in kept} & there(store)


def test_data_that_later_runs_may_train_on_stay(store):
    for span in (1, 2, 3, 4):
        store.run(f"run {span}", span=span, exact=0.5)
    store.run("in no series", exact=0.5)
    assert gc(store, "--keep", "1", "--set", "spans.window=2", "--delete") == 0
    data = [path for run in ("run 3", "run 4") for path in of(store, run) if path.split("/")[0] in CHECKED_DATA]
    assert there(store) == of(store, "in no series") | {*data} and len(data) == 2 * len(CHECKED_DATA)


def test_only_blessed_spans_of_the_same_folder_count_for_the_window(store, tmp_path):
    store.run("blessed", span=1, exact=0.5)
    for span in (2, 3):
        refused = store.execution(f"refused {span}", "BitstringExampleGen", {}, {"examples": {"span": span}})
        store.execution(f"refused {span}", "DataGate", {"examples": refused["examples"]}, {}, FAILED)
    elsewhere = store.run("elsewhere", span=20779, exact=0.5)
    lineage = LineageGraph(store.client)
    moved = [
        lineage.artifacts[link.artifact] for id in lineage.executions_of("elsewhere") for link in lineage.outputs(id)
    ]
    for artifact in moved:
        artifact.uri = artifact.uri.replace(str(store.root), str(tmp_path / "other root"))
    store.client.put_artifacts(moved)
    assert elsewhere["examples"] in {artifact.id for artifact in moved}
    store.run("in no series", exact=0.5)
    assert gc(store, "--keep", "1", "--set", "spans.window=2", "--delete") == 0
    assert {path for path in of(store, "blessed") if path.split("/")[0] in CHECKED_DATA} <= there(store)


def _withdrawn(store, run):
    """Remove the blessings of a run, so that only the push keeps its model."""
    lineage = LineageGraph(store.client)
    blessings = [
        link.artifact for id in lineage.executions_of(run) for link in lineage.outputs(id) if link.key == "blessing"
    ]
    artifacts = store.client.get_artifacts_by_id(blessings)
    for artifact in artifacts:
        artifact.custom_properties["blessed"].int_value = 0
    store.client.put_artifacts(artifacts)


def _named(store, folder, **options):
    config = model_config.one_model("bitsum", str(store.root / folder), **options)
    (store.root / "serving").mkdir(exist_ok=True)
    model_config.write(store.root / "serving" / "models.config", config)


@pytest.mark.parametrize("where", ["on disk", "moved", "version", "label", "nowhere"])
def test_ancestors_of_a_served_model_stay(store, where, capsys):
    store.run("served", version=7)
    store.run("later", exact=0.5)
    _withdrawn(store, "served")
    if where == "on disk":
        (store.config.push_to / "7").mkdir(parents=True)
    elif where == "moved":
        (store.root / "moved" / "7").mkdir(parents=True)
        _named(store, "moved")
    elif where == "version":
        _named(store, "nowhere", versions=[7])
    elif where == "label":
        _named(store, "nowhere", versions=[], labels={"stable": 7})
    assert gc(store, "--keep", "1", "--delete") == 0
    expected = of(store, "later") | (of(store, "served") if where != "nowhere" else set())
    assert there(store) == expected


def test_an_unreadable_model_config_file_is_an_error(store, capsys):
    for run in ("first", "second"):
        store.run(run, exact=0.5)
    before = there(store)
    (store.root / "serving").mkdir()
    (store.root / "serving" / "models.config").write_text("model_config_list {")
    assert gc(store, "--keep", "1", "--delete") == 1
    assert "models.config" in capsys.readouterr().err
    assert there(store) == before


def test_cached_outputs_are_kept_for_the_run_that_reused_them(store):
    first = store.run("first", exact=0.5)
    store.cached("second", "BitstringExampleGen", {}, {"examples": first["examples"]})
    assert gc(store, "--keep", "1", "--delete") == 0
    assert there(store) == {f"BitstringExampleGen/examples/{LineageGraph(store.client).producer(first['examples'])}"}


def test_an_unfinished_run_stays(store):
    first = store.run("first", exact=0.5)
    store.execution("first", "Trainer", {"examples": first["examples"]}, {}, RUNNING, **ownership.owner())
    store.run("second", exact=0.5)
    assert gc(store, "--keep", "1", "--delete") == 0
    assert there(store) == of(store, "first") | of(store, "second")


def _left(store, node, execution, key="model"):
    folder = store.root / "artifacts" / node / key / str(execution)
    folder.mkdir(parents=True)
    (folder / "half").write_text("x")
    return folder


def test_outputs_of_killed_and_failed_steps_are_orphans(store, capsys):
    gone = {**ownership.owner(), ownership.STARTED: "0f7d 17"}
    killed = _left(store, "Trainer", store.execution("run", "Trainer", {}, {}, RUNNING, **gone)["execution"])
    failed = _left(store, "Prover", store.execution("run", "Prover", {}, {}, FAILED)["execution"], "certificate")
    system = store.root / "artifacts" / "Prover" / ".system" / "executor_execution" / failed.name
    system.mkdir(parents=True)
    assert gc(store, "--delete", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    json_tables.check("bitsum gc", found)
    assert [closed["kind"] for closed in found["closed"]] == ["Trainer"] and found["deleted"]
    assert not killed.exists() and not failed.exists() and not system.exists()


def test_a_folder_of_another_store_is_not_an_orphan(store):
    """Two stores alternate in one folder: their ids are unrelated."""
    id = store.execution("run", "Trainer", {}, {}, FAILED)["execution"]
    unknown, other_node = _left(store, "Trainer", 4711), _left(store, "Prover", id)
    older = _left(store, "Trainer", id)
    os.utime(older, (1_000_000_000, 1_000_000_000))
    complete = _left(store, "Pusher", store.execution("run", "Pusher", {}, {}, COMPLETE)["execution"])
    live = _left(
        store, "Evaluator", store.execution("run", "Evaluator", {}, {}, RUNNING, **ownership.owner())["execution"]
    )
    assert gc(store, "--delete") == 0
    assert all(path.exists() for path in (unknown, other_node, older, complete, live))


def test_nothing_outside_the_folder_is_touched(store, tmp_path):
    ids = store.run("first", exact=0.5)
    store.run("second", exact=0.5)
    outside = tmp_path / "examples"
    outside.mkdir()
    inside = store.root / "artifacts" / "Trainer" / "model"
    artifacts = store.client.get_artifacts_by_id([ids["examples"], ids["model"], ids["schema"]])
    # In a user's own folder; through `..`; and a folder that holds models of other runs.
    for artifact, uri in zip(
        artifacts, (outside, inside / ".." / ".." / ".." / ".." / "examples", inside), strict=True
    ):
        artifact.uri = str(uri)
    store.client.put_artifacts(artifacts)
    assert gc(store, "--keep", "1", "--delete") == 0
    assert outside.exists() and of(store, "second") <= there(store)


def test_an_interrupted_removal_continues(store, monkeypatch, capsys):
    for run in ("first", "second"):
        store.run(run, exact=0.5)

    def full(path, *_):
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch, pytest.raises(BitsumError, match="Input/output error"):
        patch.setattr(garbage.shutil, "rmtree", full)
        garbage.remove(store.client, garbage.old(LineageGraph(store.client), store.root / "artifacts", 1, ()))
    states = [artifact.state for artifact in store.client.get_artifacts()]
    assert states.count(mlmd.Artifact.MARKED_FOR_DELETION) == 1
    assert gc(store, "--keep", "1", "--delete") == 0
    assert there(store) == of(store, "second")


@pytest.mark.parametrize(("options", "code"), [(("--keep", "0"), 2), (("--config_file", "/nowhere/models.config"), 1)])
def test_bad_options(store, options, code, capsys):
    store.run("first", exact=0.5)
    assert gc(store, *options) == code
    assert len(capsys.readouterr().err.splitlines()) == 1
