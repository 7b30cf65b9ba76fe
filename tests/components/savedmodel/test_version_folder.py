"""Version folders: whole or not at all, strictly increasing, and a manifest that notices every change."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from components.errors import BitsumError
from components.savedmodel import version_folder

pytestmark = pytest.mark.fast


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"weights")
    return folder


def test_pushed_version_holds_the_model_and_a_manifest_of_it(model, tmp_path):
    done = version_folder.push(model, tmp_path / "base", "identity-1", {"run": "r1"})
    assert done.is_new
    assert (done.path / "variables" / "variables.index").read_bytes() == b"weights"
    manifest = json.loads((done.path / "assets.extra" / "manifest.json").read_text())
    assert manifest["files"] == {
        "saved_model.pb": hashlib.sha256(b"graph").hexdigest(),
        "variables/variables.index": hashlib.sha256(b"weights").hexdigest(),
    }
    assert manifest["origin"] == {"run": "r1"}
    assert version_folder.problems(done.path) == []


def test_versions_increase_within_one_second_and_after_deletion_and_when_the_clock_goes_back(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(time, "time", lambda: 1000.5)
    base = tmp_path / "base"
    pushed = [version_folder.push(model, base, f"identity-{count}", {}).version for count in range(3)]
    assert pushed == [1000, 1001, 1002]
    shutil.rmtree(base / "1002")
    monkeypatch.setattr(time, "time", lambda: 10.0)
    assert version_folder.push(model, base, "identity-3", {}).version == 1003


def test_the_model_that_is_newest_already_is_not_pushed_again_unless_damaged(model, tmp_path):
    base = tmp_path / "base"
    first = version_folder.push(model, base, "same", {})
    again = version_folder.push(model, base, "same", {})
    assert (again.version, again.is_new) == (first.version, False)
    (first.path / "saved_model.pb").write_bytes(b"grabh")
    repaired = version_folder.push(model, base, "same", {})
    assert repaired.is_new and repaired.version > first.version
    version_folder.push(model, base, "other", {})
    assert version_folder.push(model, base, "same", {}).is_new


def test_problems_name_changed_missing_and_added_files(model, tmp_path):
    path = version_folder.push(model, tmp_path / "base", "identity", {}).path
    (path / "saved_model.pb").write_bytes(b"other")
    (path / "variables" / "variables.index").unlink()
    (path / "stranger").touch()
    found = version_folder.problems(path)
    assert [line.removeprefix(f"{path}/") for line in found] == [
        "saved_model.pb was changed",
        "stranger is not in the manifest",
        "variables/variables.index is missing",
    ]
    (path / "assets.extra" / "manifest.json").write_text("[]")
    assert "missing or damaged" in version_folder.problems(path)[0]


def test_desktop_litter_is_not_a_difference_and_a_fifo_is(model, tmp_path):
    (model / ".DS_Store").write_bytes(b"before the push")
    path = version_folder.push(model, tmp_path / "base", "identity", {}).path
    (path / "variables" / "._variables.index").write_bytes(b"after it")
    (path / "Thumbs.db").touch()
    (path / ".DS_Store").write_bytes(b"changed")
    assert version_folder.problems(path) == []
    os.mkfifo(path / "variables" / "._fifo")
    (path / "saved_model.pb").unlink()
    os.mkfifo(path / "saved_model.pb")
    assert [line.removeprefix(f"{path}/") for line in version_folder.problems(path)] == [
        "saved_model.pb was changed",
        "variables/._fifo is not in the manifest",
    ]
    (path / version_folder.MANIFEST).unlink()
    os.mkfifo(path / version_folder.MANIFEST)
    assert "missing or damaged" in version_folder.problems(path)[0]


def test_two_pushers_at_once_make_two_versions(model, tmp_path):
    program = (
        "import pathlib, sys; from components.savedmodel import version_folder;"
        "print(version_folder.push(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3], {}).version)"
    )
    base = tmp_path / "base"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(model), str(base), str(count)], stdout=subprocess.PIPE, text=True
        )
        for count in range(4)
    ]
    made = [int(process.communicate()[0]) for process in started]
    assert sorted(made) == version_folder.versions(base)
    assert len(set(made)) == 4


def test_push_to_a_place_that_cannot_be_written_is_one_line(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BitsumError, match=r"cannot push to .*file/base"):
        version_folder.push(model, tmp_path / "file" / "base", "identity", {})


def test_names_other_than_versions_are_not_counted(tmp_path):
    for name in ("7", "0010", "foo", "7.tmp", "-3", "٣", str(2**63)):
        (tmp_path / name).mkdir()
    (tmp_path / "9").touch()
    assert version_folder.versions(tmp_path) == [7, 10]
