"""components.data.scratch: unfinished files are removed, and an error names the path."""

import os

import pytest
import tensorflow as tf

from components.data import scratch
from components.errors import BitsumError


def test_a_file_appears_whole_and_leftovers_of_killed_attempts_are_removed(tmp_path):
    (tmp_path / ".writing-left").mkdir()
    (tmp_path / ".writing-left" / "half").touch()
    with scratch.folder(str(tmp_path)) as beside:
        scratch.write_text(beside, str(tmp_path / "below" / "file"), "content")
        assert os.path.basename(beside) in os.listdir(tmp_path)
    assert os.listdir(tmp_path) == ["below"] and (tmp_path / "below" / "file").read_text() == "content"


FULL = "No space left on device"


@pytest.mark.parametrize("failure", [OSError(28, FULL), tf.errors.ResourceExhaustedError(None, None, FULL)])
@pytest.mark.parametrize("at", ["makedirs", "rename"])
def test_a_disk_that_fails_is_one_line_and_nothing_stays(at, failure, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise failure

    monkeypatch.setattr(tf.io.gfile, at, fails)
    failed = pytest.raises(BitsumError, match=f"cannot write {tmp_path}/file: .*{FULL}")
    with failed, scratch.folder(str(tmp_path)) as beside:
        scratch.write_text(beside, str(tmp_path / "file"), "content")
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted(written):
        with open(written, "w") as file:
            file.write("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), scratch.folder(str(tmp_path)) as beside:
        scratch.write(beside, str(tmp_path / "file"), interrupted)
    assert os.listdir(tmp_path) == []
