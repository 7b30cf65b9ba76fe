"""The files that a certified model may have: all that an export and a push write, and nothing else; no file is
opened."""

import os
import shutil
import socket

import pytest

from components.errors import BitsumError
from components.savedmodel import model_files, version_folder

pytestmark = pytest.mark.fast


@pytest.fixture
def model(certified_model, tmp_path):
    return shutil.copytree(certified_model, tmp_path / "model")


def test_every_file_of_an_export_and_a_push_is_allowed(model, tmp_path):
    (model / "assets.extra" / "tf_serving_warmup_requests").touch()
    (model / "assets.extra" / "model.sig").touch()
    pushed = version_folder.push(model, tmp_path / "base", "identity", {}).path
    assert {entry.name for entry in model_files.entries(pushed)} == model_files.FILES | model_files.FOLDERS
    assert model_files.foreign(pushed) == []


_MODELS = ("model.tflite", "saved_model.mlir", "saved_model.pbtxt", "saved_model.cpb", "keras_metadata.pb")
_BESIDE = ("variables/variables.data-00001-of-00002", "variables/checkpoint", "assets/vocabulary.txt")
_EXTRA = ("assets.extra/saved_model_config.pb", "assets.extra/more/certificate.json", "aot_packages/package.so")
_NEARLY = ("..data", "..2026/saved_model.pb", "SAVED_MODEL.PB", "saved_model.pb ", "._folder/file", ".ds_store")


@pytest.mark.parametrize("name", [*_MODELS, *_BESIDE, *_EXTRA, *_NEARLY])
def test_any_other_file_is_named(model, name):
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).touch()
    found = model_files.foreign(model)
    assert (
        1 <= len(found) <= 2
        and found[0].startswith(name.partition("/")[0])
        and "that no certified model has" in found[0]
    )


@pytest.mark.parametrize("name", ["aot_packages", "assets/empty", "variables/empty"])
def test_any_other_folder_is_named(model, name):
    (model / name).mkdir()
    assert model_files.foreign(model) == [f"{name} is a folder that no certified model has"]


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.index", "assets.extra/manifest.json", ".DS_Store", "assets/x"]
)
def test_entries_other_than_files_are_named(model, name, tmp_path_factory, monkeypatch):
    def socket_there():
        # The path of a socket must be short.
        monkeypatch.chdir((model / name).parent)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind((model / name).name)

    makers = {
        "a FIFO": lambda: os.mkfifo(model / name),
        "a socket": socket_there,
        "a broken link": lambda: (model / name).symlink_to("nowhere"),
        "a device": lambda: (model / name).symlink_to("/dev/null"),
    }
    for kind, make in makers.items():
        (model / name).unlink(missing_ok=True)
        make()
        [line] = model_files.foreign(model)
        assert line.startswith(f"{name} is {kind}") or line == f"{name} is a link to /dev/null, outside of the model"


def test_links_within_the_model_are_allowed_and_links_to_outside_are_named(model, tmp_path):
    outside = shutil.copytree(model / "variables", tmp_path / "outside")
    (model / "saved_model.pb").rename(model / "variables" / "variables.index.real")
    (model / "saved_model.pb").symlink_to("variables/variables.index.real")
    assert model_files.foreign(model) == ["variables/variables.index.real is a file that no certified model has"]
    (model / "variables" / "variables.index.real").rename(model / "fingerprint.pb")
    (model / "saved_model.pb").unlink()
    (model / "saved_model.pb").symlink_to("fingerprint.pb")
    assert model_files.foreign(model) == []

    shutil.rmtree(model / "variables")
    (model / "variables").symlink_to(outside)
    assert model_files.foreign(model) == [f"variables is a link to {outside}, outside of the model"]
    (model / "variables").unlink()
    (model / "variables").symlink_to("variables")
    assert model_files.foreign(model) == ["variables is a broken link that no certified model has"]


def test_a_folder_that_kubernetes_mounts_is_allowed(model, tmp_path):
    mount = tmp_path / "mount"
    shutil.copytree(model, mount / "..2026_11_27_09_00_00.1")
    (mount / "..data").symlink_to("..2026_11_27_09_00_00.1")
    for name in os.listdir(model):
        (mount / name).symlink_to(f"..data/{name}")
    (tmp_path / "7").symlink_to(mount)
    assert model_files.foreign(tmp_path / "7") == []
    assert {entry.name for entry in model_files.entries(mount)} == {entry.name for entry in model_files.entries(model)}
    assert version_folder.sha256_of_files(tmp_path / "7") == version_folder.sha256_of_files(model)

    (mount / "..data" / "variables" / "more").touch()
    assert model_files.foreign(mount) == ["variables/more is a file that no certified model has"]


def test_desktop_litter_is_reported(model):
    assert model_files.litter(model) == [] == model_files.foreign(model)
    left = ["._saved_model.pb", ".DS_Store", "Thumbs.db", "assets/.DS_Store", "variables/._variables.index"]
    for name in left:
        (model / name).touch()
    assert sorted(model_files.litter(model)) == sorted(left)
    assert model_files.foreign(model) == []


def test_cyclic_links_are_not_followed_forever(model):
    for number in range(30):
        (model / f"link-{number}").symlink_to(".")
        (model / "variables" / f"link-{number}").symlink_to("..")
    assert len(model_files.foreign(model)) > 60


def test_a_disk_failure_is_not_a_fault_of_the_model(model, monkeypatch):
    stat = os.stat

    def failing(path, *args, **kwargs):
        if os.fspath(path).endswith("saved_model.pb"):
            raise OSError(5, "Input/output error", path)
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", failing)
    with pytest.raises(BitsumError, match=r"^cannot read .*/saved_model.pb: Input/output error$"):
        model_files.foreign(model)


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(BitsumError, match=r"^cannot read .*: No such file or directory$"):
        model_files.foreign(tmp_path / "none")
