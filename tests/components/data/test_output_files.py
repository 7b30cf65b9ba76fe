"""The record of an artifact's files, and the differences found afterwards."""

import hashlib
import json
import os

import pytest

from components.data import output_files

pytestmark = pytest.mark.fast


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "model" / "8"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    (folder / "empty").touch()
    return folder


def test_the_record_has_sizes_and_hashes_and_no_hidden_files(artifact):
    (artifact / ".DS_Store").touch()
    assert json.loads(output_files.record(str(artifact))) == {
        name: [len(content), hashlib.sha256(content).hexdigest()]
        for name, content in {"saved_model.pb": b"graph", "variables/variables.index": b"index", "empty": b""}.items()
    }


def test_a_large_file_is_compared_by_size_only(artifact):
    with open(artifact / "large", "wb") as file:
        file.truncate(10_000_000)
    record = output_files.record(str(artifact))
    assert json.loads(record)["large"] == [10_000_000, ""]
    os.truncate(artifact / "large", 9_999_999)
    assert output_files.problem(str(artifact), record) == f"{artifact}/large was changed"


@pytest.mark.parametrize(
    ("damage", "change"),
    [
        (lambda folder: None, None),
        (lambda folder: (folder / ".DS_Store").touch(), None),
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"Graph"), "saved_model.pb was changed"),
        (lambda folder: os.truncate(folder / "variables/variables.index", 0), "variables/variables.index was changed"),
        (lambda folder: (folder / "empty").unlink(), "empty is missing"),
        (lambda folder: (folder / "variables" / "more").touch(), "variables/more was added"),
        (lambda folder: folder.rename(folder.with_name("9")), "model/8 is missing"),
    ],
)
def test_each_difference_is_named(artifact, damage, change):
    record = output_files.record(str(artifact))
    damage(artifact)
    assert output_files.problem(str(artifact), record) == (
        change and (f"{artifact.parents[1]}/{change}" if "/8 " in change else f"{artifact}/{change}")
    )


def test_an_artifact_without_a_record_must_have_files(artifact, tmp_path):
    (artifact / "saved_model.pb").write_bytes(b"another")
    assert output_files.problem(str(artifact), "") is None
    (tmp_path / "hollow" / "folder").mkdir(parents=True)
    assert output_files.problem(str(tmp_path / "hollow"), "") == f"{tmp_path}/hollow is missing, or empty"
    assert output_files.problem(str(tmp_path / "gone"), "") == f"{tmp_path}/gone is missing, or empty"


def test_an_artifact_may_be_one_file_and_may_be_remote(artifact):
    file = str(artifact / "saved_model.pb")
    record = output_files.record(file)
    assert json.loads(record) == {"": [5, hashlib.sha256(b"graph").hexdigest()]}
    assert output_files.problem(file, record) is None
    (artifact / "saved_model.pb").write_bytes(b"other")
    assert output_files.problem(file, record) == f"{file} was changed"
    assert output_files.record("gs://bucket/model/8") == ""
    assert output_files.problem("gs://bucket/model/8", "") is None


@pytest.mark.parametrize("record", ["{", "[]", "7", "[" * 100_000])
def test_a_damaged_record_is_reported(artifact, record):
    assert output_files.problem(str(artifact), record) == f"the record of the files of {artifact} is damaged"
