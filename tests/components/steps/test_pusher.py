"""The Pusher on real artifacts: both blessings or nothing, whole versions, and the record in the artifact."""

import json
import pathlib

import pytest
from tfx.dsl.components.base import base_executor
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.errors import BitsumError, Refusal
from components.savedmodel import fingerprint, push_order, version_folder
from components.steps import pusher
from tests.support import adder_model


def _push(
    tmp_path,
    blessed: int,
    infra: int,
    name: str = "run",
    task: str = "addition",
    span: int = 0,
    allow_older: int = 0,
    date: str = "",
) -> standard_artifacts.PushedModel:
    """Run the executor as TFX runs it, on a model that infra validation left in its blessing."""
    kinds = {
        "model": standard_artifacts.Model,
        "examples": standard_artifacts.Examples,
        "model_blessing": standard_artifacts.ModelBlessing,
        "infra_blessing": standard_artifacts.InfraBlessing,
    }
    inputs = {key: [kind()] for key, kind in kinds.items()}
    for key, [artifact] in inputs.items():
        artifact.uri = str(tmp_path / key)
        pathlib.Path(artifact.uri).mkdir(exist_ok=True)
    inputs["model_blessing"][0].set_int_custom_property("blessed", blessed)
    inputs["infra_blessing"][0].set_int_custom_property("blessed", infra)
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(tmp_path / name)
    context = base_executor.BaseExecutor.Context(pipeline_run_id="run-1")
    properties = {"destination": str(tmp_path / "served"), "task": task, "config_hash": "c", "code": "d", "span": span}
    properties |= {"span_date": date, "allow_older": allow_older}
    pusher.Executor(context).Do(inputs, {"pushed_model": [pushed]}, properties)
    return pushed


@pytest.fixture
def stamped(tmp_path):
    folder = pathlib.Path(path_utils.stamped_model_path(str(tmp_path / "infra_blessing")))
    adder_model.save(folder)
    return folder


def test_the_model_that_infra_validation_served_is_pushed_and_recorded(tmp_path, stamped):
    (stamped / "assets.extra").mkdir()
    (stamped / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"warm")
    pushed = _push(tmp_path, 1, 1)
    [version] = version_folder.versions(tmp_path / "served")
    folder = tmp_path / "served" / str(version)
    assert (folder / "assets.extra" / "tf_serving_warmup_requests").read_bytes() == b"warm"
    assert version_folder.problems(folder) == []
    origin = version_folder.manifest(folder)["origin"]
    assert (origin["run"], origin["config_sha256"], origin["code_sha256"]) == ("run-1", "c", "d")
    assert (origin["task"], origin["certificate"], len(origin["graph_sha256"])) == ("addition", "", 64)
    assert origin["data_sha256"] == version_folder.sha256_of_files(tmp_path / "examples")
    assert (pushed.get_int_custom_property("pushed"), pushed.get_int_custom_property("is_new")) == (1, 1)
    assert pushed.get_string_custom_property("pushed_version") == str(version)
    assert json.loads((pathlib.Path(pushed.uri) / "manifest.json").read_text())["version"] == version


@pytest.mark.parametrize("blessings", [(0, 1), (1, 0), (0, 0)])
def test_without_both_blessings_nothing_is_pushed(tmp_path, stamped, blessings):
    pushed = _push(tmp_path, *blessings)
    assert pushed.get_int_custom_property("pushed") == 0
    assert not (tmp_path / "served").exists()


def test_the_same_model_saved_again_is_not_pushed_again_and_another_one_is(tmp_path, stamped):
    first = _push(tmp_path, 1, 1)
    adder_model.save(stamped)
    again = _push(tmp_path, 1, 1, "again")
    assert again.get_int_custom_property("is_new") == 0
    assert again.get_string_custom_property("pushed_version") == first.get_string_custom_property("pushed_version")
    adder_model.save(stamped, broken=True)
    other = _push(tmp_path, 1, 1, "other")
    assert other.get_int_custom_property("is_new") == 1
    assert len(version_folder.versions(tmp_path / "served")) == 2


def test_the_manifest_holds_the_date_of_a_span_given_as_one(tmp_path, stamped):
    version = _push(tmp_path, 1, 1, span=4, date="1970-01-05").get_string_custom_property("pushed_version")
    origin = version_folder.manifest(tmp_path / "served" / version)["origin"]
    assert (origin["span"], origin["span_date"]) == (4, "1970-01-05")
    adder_model.save(stamped, broken=True)
    with pytest.raises(Refusal, match="span 1970-01-04 is earlier than span 1970-01-05"):
        _push(tmp_path, 1, 1, "earlier", span=3, date="1970-01-04")


def test_a_model_of_an_earlier_span_does_not_replace_a_later_one(tmp_path, stamped):
    first = _push(tmp_path, 1, 1, span=5)
    [version] = version_folder.versions(tmp_path / "served")
    assert version_folder.manifest(tmp_path / "served" / str(version))["origin"]["span"] == 5
    # The same model is the same, whichever span it is pushed for.
    assert _push(tmp_path, 1, 1, "same", span=4).get_int_custom_property("is_new") == 0
    adder_model.save(stamped, broken=True)
    with pytest.raises(
        Refusal, match=f"^push refused: span 4 is earlier than span 5 of version {version} in .*, which stays"
    ):
        _push(tmp_path, 1, 1, "earlier", span=4)
    with pytest.raises(
        Refusal,
        match=f"^push refused: span 0 \\(a run without a span\\) is earlier than span 5 of version {version} in ",
    ):
        _push(tmp_path, 1, 1, "alone")
    assert version_folder.versions(tmp_path / "served") == [version]
    assert version_folder.problems(tmp_path / "served" / first.get_string_custom_property("pushed_version")) == []
    # A span that is run again with other data may, and any where that is asked for.
    assert _push(tmp_path, 1, 1, "again", span=5).get_int_custom_property("is_new") == 1
    adder_model.save(stamped)
    assert _push(tmp_path, 1, 1, "older", span=4, allow_older=1).get_int_custom_property("is_new") == 1


def test_an_ancestor_of_the_newest_model_does_not_replace_it(tmp_path, stamped):
    _push(tmp_path, 1, 1, span=5)
    mother = fingerprint.weights_sha256(stamped)
    adder_model.save(stamped, broken=True)
    push_order.write_ancestors(path_utils.serving_model_path(str(tmp_path / "model")), ["daughter", mother])
    version = _push(tmp_path, 1, 1, "on", span=5).get_string_custom_property("pushed_version")
    assert version_folder.manifest(tmp_path / "served" / version)["origin"]["ancestors"] == ["daughter", mother]
    adder_model.save(stamped)
    with pytest.raises(
        Refusal, match=f"^push refused: the model of span 6 is an ancestor of that of span 5, version {version} in "
    ):
        _push(tmp_path, 1, 1, "back", span=6)
    assert _push(tmp_path, 1, 1, "older", span=6, allow_older=1).get_int_custom_property("is_new") == 1


def test_a_model_for_another_task_does_not_replace_the_served_one(tmp_path, stamped):
    _push(tmp_path, 1, 1)
    with pytest.raises(BitsumError, match="holds versions for addition, this model is for subtraction"):
        _push(tmp_path, 1, 1, "other", task="subtraction")
    assert len(version_folder.versions(tmp_path / "served")) == 1
