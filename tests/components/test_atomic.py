"""components.atomic: files appear whole, leftovers of killed writers are removed, and work in progress stays."""

import multiprocessing
import os
import signal
import stat

import pytest

from components import atomic

pytestmark = pytest.mark.fast


def test_a_file_takes_the_place_of_another_with_its_mode_and_through_a_link(tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place/file")
    atomic.write(tmp_path / "link", "old")
    atomic.write(tmp_path / "link", b"new", mode=0o600)
    assert (tmp_path / "place" / "file").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "place" / "file").stat().st_mode) == 0o600
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path / "place") == ["file"]


def test_an_error_leaves_the_old_content_and_nothing_beside_it(tmp_path):
    atomic.write(tmp_path / "file", "old")
    with pytest.raises(ZeroDivisionError), atomic.file(tmp_path / "file") as partial:
        partial.write_text("new")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), atomic.folder(tmp_path / "folder") as partial:
        (partial / "below").touch()
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("make", [atomic.file, atomic.folder])
def test_other_kinds_and_full_folders_are_not_replaced(make, tmp_path):
    os.mkfifo(tmp_path / "there")
    with pytest.raises(FileExistsError), make(tmp_path / "there"):
        pytest.fail("nothing is to be written")
    (tmp_path / "full" / "of").mkdir(parents=True)
    with pytest.raises(OSError), make(tmp_path / "full"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["full", "there"] and os.listdir(tmp_path / "full") == ["of"]


def _dies(make, path):
    with make(path):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("make", [atomic.file, atomic.folder])
def test_the_next_writer_removes_leftovers_of_killed_writers_and_keeps_work_in_progress(make, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_dies, args=(make, tmp_path / "one"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    [left] = os.listdir(tmp_path)
    assert left != "one" and left.startswith(".")
    with make(tmp_path / "two") as under_way:
        atomic.write(tmp_path / "three", "")
        assert sorted(os.listdir(tmp_path)) == sorted([under_way.name, "three"])
    assert sorted(os.listdir(tmp_path)) == ["three", "two"]


def test_an_interrupt_after_the_rename_says_that_it_is_written(tmp_path, monkeypatch):
    def interrupted(path):
        if path == tmp_path:
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "sync", interrupted)
    with pytest.raises(KeyboardInterrupt, match="file is written"):
        atomic.write(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_folder_that_cannot_be_read_is_an_error_and_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    assert atomic.tree(tmp_path) == [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "file"]
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        atomic.tree(tmp_path)


def test_a_lock_is_held_by_one_and_its_file_is_gone_afterwards(tmp_path):
    with atomic.lock(tmp_path / ".lock"):
        with pytest.raises(BlockingIOError), atomic.lock(tmp_path / ".lock"):
            pytest.fail("it is held")
        assert os.listdir(tmp_path) == [".lock"]
    assert os.listdir(tmp_path) == []
    (tmp_path / ".lock").touch()
    with atomic.lock(tmp_path / ".lock"):
        pass
    assert os.listdir(tmp_path) == []
