"""The folders of a file system at the top of its mount, which nobody may read, are in nobody's way."""

import pytest

from components import atomic
from components.errors import BitsumError
from components.formats import request_logs
from components.savedmodel import version_folder
from pipeline import cli, workspace
from tests.support.unprivileged import unprivileged

pytestmark = pytest.mark.fast

NAMES = ("lost+found", ".snapshot")


def mounted(folder):
    """As if `folder` were the top of a mount."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (folder / name).mkdir()
        (folder / name).chmod(0)


@pytest.fixture
def used(store, certified_model):
    """A root whose folders are mounts, with a run and a pushed version."""
    store.run("monday", exact=0.5)
    store.run("tuesday", version=7)
    version_folder.push(certified_model, store.config.push_to, "it", {"run": "tuesday", "task": "addition"})
    (store.config.push_to / "7").mkdir()
    for name in ("", "artifacts", "artifacts/Trainer", "serving", "serving/bitsum", "logs", "holders", "schedule"):
        mounted(store.root / name)
    return store


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--server=127.0.0.1:1"],
        ["history"],
        ["lineage"],
        ["gc"],
        ["gc", "--delete", "--keep=1"],
        ["relocate"],
        ["relocate", "--from=/elsewhere", "--yes"],
        ["node", "check", "--run-id=x"],
    ],
    ids=" ".join,
)
def test_every_command_works_in_a_root_of_its_own_mount(arguments, used, capfd):
    with unprivileged():
        code = cli.main([*arguments, *used.settings])
    output = capfd.readouterr()
    # No server answers, and version 7 is an empty folder.
    assert code == (arguments[0] == "status") and not any(name in output.out + output.err for name in NAMES), output


def test_a_mount_is_an_empty_root_and_a_file_of_somebody_else_is_not(tmp_path):
    mounted(tmp_path / "root")
    with unprivileged():
        assert (workspace.prepare(tmp_path / "root") / workspace.MARKER).exists()
    mounted(tmp_path / "other")
    (tmp_path / "other" / "thesis").touch()
    with pytest.raises(BitsumError, match="holds 1 files that are not bitsum's, the first being 'thesis'"):
        workspace.prepare(tmp_path / "other")


def test_a_request_log_and_a_base_path_on_a_mount(tmp_path):
    mounted(tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "requests-1-1.tfrecords").touch()
    with unprivileged():
        assert version_folder.versions(tmp_path) == [1]
        assert (
            request_logs.files(tmp_path)
            == atomic.matching(tmp_path, "requests-*")
            == [tmp_path / "requests-1-1.tfrecords"]
        )
