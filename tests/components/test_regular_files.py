"""FIFOs, folders, devices, huge files and deeply nested JSON where bitsum reads a file."""

import json
import os
import pathlib
import tracemalloc

import pytest

from components import regular_files, settings
from components.data import output_files
from components.errors import BitsumError
from components.proof import certificate
from components.savedmodel import checkpoint, graph_identity, push_order, version_folder
from components.steps import model_server
from pipeline import config, root_lock
from pipeline.records import relocation
from serving import model_config, tls
from serving.runtime import batching_parameters
from serving.server import metrics, tfserving

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


def sparse(path, size=2**30):
    """A file of `size` zero bytes that takes no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def _manifest(folder):
    sparse(folder / version_folder.MANIFEST)
    version_folder.problems(folder)


def _index(folder):
    sparse(folder / "variables" / "variables.index")
    (folder / "variables" / "variables.data-00000-of-00001").touch()
    checkpoint.read(folder)


def _weights(folder):
    (folder / "variables").mkdir()
    (folder / "variables" / "variables.index").touch()
    sparse(folder / "variables" / "variables.data-00000-of-00001")
    checkpoint.read(folder)


def _graph(folder):
    sparse(folder / "saved_model.pb")
    graph_identity.graph_sha256(folder)


def _ancestors(folder):
    sparse(folder / "ancestors.json")
    push_order.ancestors(str(folder / "model"))


@pytest.mark.parametrize(
    "read",
    [
        _manifest,
        _index,
        _weights,
        _graph,
        _ancestors,
        lambda folder: relocation.read(sparse(folder / relocation.FILE).parent),
        lambda folder: model_config.read(sparse(folder / "models.config")),
        lambda folder: config.load(str(sparse(folder / "bitsum.toml")), []),
        lambda folder: batching_parameters.read(sparse(folder / "batching")),
        lambda folder: tls.ServerIdentity(sparse(folder / "ssl")),
        lambda folder: tls.client_credentials(ca=sparse(folder / "ca.pem")),
        lambda folder: metrics.prometheus_path(sparse(folder / "monitoring")),
    ],
)
def test_a_huge_file_is_refused_with_its_size_and_the_limit_without_being_read(read, tmp_path):
    tracemalloc.start()
    try:
        with pytest.raises(
            BitsumError, match=rf"cannot read .*{tmp_path}.*it has {2**30} bytes or more, the limit is \d+"
        ):
            read(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_a_file_that_grows_and_a_pipe_without_an_end_are_limited(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="the limit is"):
        regular_files.read_argument("/dev/zero")
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    monkeypatch.setattr(regular_files.os, "fstat", lambda descriptor: os.stat(sparse(tmp_path / "small", 3)))
    with pytest.raises(OSError, match="it has 5 bytes or more, the limit is 4"):
        regular_files.read(path, 4)
    assert regular_files.read(path, 5) == b"12345"


def test_files_that_a_manifest_lacks_are_not_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(regular_files, "sha256", lambda path: pytest.fail(f"{path} is read"))
    sparse(tmp_path / "more")
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / version_folder.MANIFEST).write_text(json.dumps({"files": {"gone": "0"}}))
    assert version_folder.problems(tmp_path) == [
        f"{tmp_path}/gone is missing",
        f"{tmp_path}/more is not in the manifest",
    ]


DEEP = "[" * 100_000 + "]" * 100_000


def _ready(folder):
    (folder / "ready").write_text(DEEP)
    model_server._ready(folder / "ready")


def _run_lock(folder):
    (folder / "run-lock.json").write_text(DEEP)
    root_lock._RunLock.read(folder / "run-lock.json")


def _toml(folder):
    (folder / "bitsum.toml").write_text(f"x = {DEEP}")
    config.load(str(folder / "bitsum.toml"), [])


def _deep_ancestors(folder):
    (folder / "ancestors.json").write_text(DEEP)
    push_order.ancestors(str(folder / "model"))


@pytest.mark.parametrize(
    "read",
    [
        _ready,
        _run_lock,
        _toml,
        _deep_ancestors,
        lambda folder: config.load(None, [f"train.steps={DEEP}"]),
        lambda folder: settings.Serve.from_json(DEEP),
        lambda folder: tfserving._variables(DEEP),
        lambda folder: certificate.parse(DEEP),
    ],
)
def test_text_that_is_nested_too_deeply_is_an_ordinary_error(read, tmp_path):
    with pytest.raises((BitsumError, certificate.Malformed)) as refusal:
        read(tmp_path)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 1000


def test_damaged_records_that_are_nested_too_deeply_count_as_damaged(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / version_folder.MANIFEST).write_text(DEEP)
    assert version_folder.manifest(tmp_path) == {}
    assert "damaged" in output_files.problem(str(tmp_path), DEEP)


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
