"""States from the boxes, sent to a real server that runs the certified cell or another one."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from components.data import tf_examples
from components.model import export
from components.proof import certificate
from components.steps import model_server
from components.task import addition
from tests.support import certified, json_tables
from tests.support.cells import cell_of

SERVE = [sys.executable, "-m", "pipeline", "serve"]
PROBE = [sys.executable, "-m", "pipeline", "probe"]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    file = tmp_path_factory.mktemp("examples") / "data.tfrecord.gz"
    bits = {"a": addition.to_bits(13, 5), "b": addition.to_bits(29, 5), "sum": addition.to_bits(42, 6), "length": [5]}
    tf_examples.write_records(str(file), [tf_examples.serialize(bits)])
    return file


def _export(folder: pathlib.Path, **changes: np.ndarray) -> pathlib.Path:
    """The certified cell as a SavedModel with its certificate; `changes` replace weights."""
    export.save(cell_of(**changes), str(folder))
    (folder / certificate.FILE).parent.mkdir()
    (folder / certificate.FILE).write_text(json.dumps(certified.certificate()))
    return folder


def _probe(tmp_path, served: pathlib.Path, claimed: pathlib.Path, examples) -> tuple[int, dict, str]:
    base = tmp_path / "base"
    shutil.copytree(served, base / "1")
    with model_server.serving(SERVE, "adder", base, tmp_path / "log", timeout=120) as server:
        command = [
            *PROBE,
            server.target,
            "--model_name=adder",
            f"--certificate={claimed}",
            "--json",
            "--examples",
            str(examples),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_the_certified_cell_stays_in_its_boxes(tmp_path, examples):
    model = _export(tmp_path / "model")
    code, report, errors = _probe(tmp_path, model, model, examples)
    assert code == 0, errors
    json_tables.check("bitsum probe", report)
    assert report["boxes"]["asked"] == report["boxes"]["right"] == 4 * 4 * 18
    assert report["right"] == report["asked"] == 4


def test_another_cell_that_adds_correctly_is_detected(tmp_path, examples):
    claimed = _export(tmp_path / "claimed")
    weights = certified.arrays(certified.weights())
    served = _export(
        tmp_path / "served", W_o=weights["W_o"] * np.float32(1.001), b_o=weights["b_o"] * np.float32(1.001)
    )
    code, report, _ = _probe(tmp_path, served, claimed, examples)
    assert code == 1
    assert report["right"] == report["asked"]
    assert report["boxes"]["right"] < report["boxes"]["asked"]
    assert "outside of" in report["boxes"]["wrong"][0]


def test_an_invalid_certificate_is_refused_before_probing(tmp_path, examples):
    model = _export(tmp_path / "model")
    text = (model / certificate.FILE).read_text()
    (model / certificate.FILE).write_text(text.replace('"addition"', '"subtraction"'))
    code, report, errors = _probe(tmp_path, model, model, examples)
    assert (code, report["exit_code"]) == (1, 1)
    assert "is refused" in errors and errors.count("\n") == 1
