"""Loading a certified version: only with the certified files and weights. Versions without a certificate load as
usual."""

import logging
import os
import random
import shutil

import pytest

from benchmarks import forged_checkpoints
from components.formats import table
from components.proof import certificate
from components.savedmodel import checkpoint
from serving.server import grpc_server
from serving.status import Code, StatusError
from tests.support import certified_model


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certified") / "1"
    certified_model.export(folder)
    return folder


@pytest.fixture
def version(certified, tmp_path):
    return shutil.copytree(certified, tmp_path / "1")


def refusal(version):
    with pytest.raises(StatusError) as refused:
        grpc_server.load(version)
    assert refused.value.code == Code.DATA_LOSS and "\n" not in str(refused.value)
    return str(refused.value)


def test_a_certified_version_loads_and_litter_is_reported(version, caplog):
    (version / ".DS_Store").touch()
    with caplog.at_level(logging.WARNING, "bitsum.serving"):
        grpc_server.load(version).close()
    messages = [record.getMessage() for record in caplog.records if record.name == "bitsum.serving"]
    assert messages == [f"{version / '.DS_Store'} is ignored"]


def test_foreign_files_prevent_the_load_only_of_a_certified_version(version):
    (version / "model.tflite").touch()
    assert "model.tflite is a file that no certified model has (1 such files in all)" in refusal(version)
    (version / certificate.FILE).unlink()
    grpc_server.load(version).close()


def test_a_certificate_that_is_a_fifo_is_never_opened(version):
    (version / certificate.FILE).unlink()
    os.mkfifo(version / certificate.FILE)
    assert "certificate.json is a FIFO, not a file" in refusal(version)


def test_weights_that_tensorflow_reads_differently_from_the_checker_are_not_loaded(version, monkeypatch):
    forged = forged_checkpoints.Checkpoint.read(version)
    forged_checkpoints.hide_in_value(forged, random.Random(1))
    forged.write(version)
    assert "a restart point is not at an entry with a whole key" in refusal(version)
    monkeypatch.setattr(table, "read", lambda _: dict(forged.entries))
    monkeypatch.setattr(checkpoint, "_require_plain", lambda *_: None)
    assert (
        "TensorFlow loads a different U_r/.ATTRIBUTES/VARIABLE_VALUE than the checker reads (6 differences in all)"
        in refusal(version)
    )
