"""FIFOs, folders and devices where bitsum reads a file: a FIFO without a writer must not block it."""

import json
import os
import pathlib

import pytest

from components import regular_files
from components.data import output_files
from components.errors import BitsumError
from components.savedmodel import version_folder
from pipeline import root_lock
from pipeline.records import relocation
from serving import model_config

pytestmark = pytest.mark.fast


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_anything_but_a_regular_file_is_refused_at_once(fifo, tmp_path):
    for path in (fifo, tmp_path, pathlib.Path("/dev/zero")):
        with pytest.raises(OSError, match="is not a regular file"):
            regular_files.read(path)
    (tmp_path / "file").write_bytes(b"[" * 100_000)
    with pytest.raises(ValueError, match="nested"):
        regular_files.read_json(tmp_path / "file")


def test_every_reader_of_untrusted_files_refuses_a_fifo(fifo, tmp_path):
    with pytest.raises(BitsumError, match="is not a regular file"):
        model_config.read(fifo)
    assert "is not a regular file" in output_files.problem(str(tmp_path), "{}")
    os.rename(fifo, tmp_path / relocation.FILE)
    with pytest.raises(BitsumError, match="is not a regular file"):
        relocation.read(tmp_path)
    (tmp_path / "holders").mkdir()
    os.rename(tmp_path / relocation.FILE, tmp_path / "holders" / "x.json")
    assert root_lock._holders(tmp_path / "holders") is None
    (tmp_path / "assets.extra").mkdir()
    os.rename(tmp_path / "holders" / "x.json", tmp_path / version_folder.MANIFEST)
    assert version_folder.manifest(tmp_path) == {}


@pytest.mark.parametrize(
    "content",
    [
        {"id": "a", "path": None, "former": []},
        {"id": "a", "path": "/", "former": []},
        {"id": "a", "path": "var", "former": []},
        {"id": [1], "path": "/var", "former": []},
        {"id": "a", "path": "/var", "former": "abc"},
        {"id": "a", "path": "/var", "former": [1]},
        {"id": "a", "path": "/var"},
        [],
        "text",
    ],
)
def test_a_root_record_with_other_content_is_damaged(tmp_path, content):
    (tmp_path / relocation.FILE).write_text(json.dumps(content))
    with pytest.raises(BitsumError, match=r"root.json is damaged: remove it"):
        relocation.read(tmp_path)
