"""`bitsum verify`: one line for every outcome, its exit code, and no TensorFlow unless the graph is exported
again."""

import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from benchmarks import forged_checkpoints
from components.formats import table
from components.savedmodel import checkpoint as saved_weights
from components.savedmodel import graph_identity
from pipeline import cli
from tests.support import certified

pytestmark = pytest.mark.fast

PROVEN, FAILED, REFUSED = 0, 1, 3
CERTIFICATE = "assets.extra/certificate.json"


@pytest.fixture
def copy(certified_model, tmp_path):
    return shutil.copytree(certified_model, tmp_path / "model")


@pytest.fixture
def verify(capsys):
    """verify(arguments) -> (exit code, its one line of output)."""

    def run(*arguments):
        code = cli.main(["verify", *map(str, arguments)])
        output = capsys.readouterr()
        assert (output.out == "") == (code == FAILED) == (output.err != ""), output
        text = output.out or output.err
        assert text.count("\n") == 1
        return code, text.strip()

    return run


def test_a_certified_model_is_proven(certified_model, verify):
    code, line = verify(certified_model)
    assert code == PROVEN
    assert line.startswith(
        "proven: addition of any length; worst margin 5.27803; tightest containment 4.87205e-07; 8 units; weights "
    )
    assert line.endswith(
        "not checked: the graph (--graph compares it with the cell), the kernels of the server that runs it"
    )


def test_json_has_every_fact(certified_model, verify):
    code, line = verify(certified_model, "--json")
    report = json.loads(line)
    assert code == PROVEN
    assert report.pop("margin") == pytest.approx(5.27803, rel=1e-5)
    assert report.pop("slack") == pytest.approx(4.87205e-07, rel=1e-5)
    assert report == {
        "proven": True,
        "reason": "proven: addition of any length",
        "where": "",
        "evaluations": 20,
        "task": "addition",
        "units": 8,
        "weights_sha256": certified.weights().sha256(),
        "export_format": 2,
        "graph_sha256": graph_identity.graph_sha256(certified_model),
        "graph_compared_with": None,
        "graph_differences": [],
        "weight_differences": [],
        "foreign_files": [],
        "ignored_files": [],
        "not_checked": ["the graph (--graph compares it with the cell)", "the kernels of the server that runs it"],
        "model": str(certified_model),
        "certificate": str(certified_model / CERTIFICATE),
    }


def test_tensorflow_and_numpy_are_not_imported(certified_model):
    program = (
        "import sys\nfrom pipeline import cli\n"
        f"assert cli.main(['verify', {str(certified_model)!r}]) == 0\n"
        "print([name for name in ('tensorflow', 'numpy', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == ["[]"], done.stderr


@pytest.mark.slow
def test_the_graph_is_compared_with_the_cell(certified_model, copy, verify):
    code, line = verify(certified_model, "--graph")
    assert code == PROVEN and "; the graph is the cell's; not checked: the kernels" in line
    rewire(copy)
    assert verify(copy)[0] == PROVEN
    code, line = verify(copy, "--graph")
    assert code == REFUSED
    assert line.startswith("refused: addition is not proven: the graph differs: function "), line
    assert 'name: "Tanh" op: "Sigmoid"' in line and "the graph is the cell's" not in line


@pytest.mark.slow
def test_a_graph_of_another_tensorflow_that_differs_is_not_judged(copy, verify):
    path = copy / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    model.meta_graphs[0].meta_info_def.tensorflow_version = "2.15.1"
    path.write_bytes(model.SerializeToString())
    assert verify(copy, "--graph")[0] == PROVEN
    rewire(copy)
    code, line = verify(copy, "--graph")
    assert code == FAILED
    assert line.startswith(f"bitsum: cannot compare the graph of {copy}, which TensorFlow 2.15.1 exported, with an")
    assert f"by TensorFlow {tf.__version__}: use bitsum with TensorFlow 2.15.1, or verify --graph-sha256" in line


def rewire(model_dir):
    path = model_dir / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for function in model.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.op = "Sigmoid" if node.op == "Tanh" else node.op
    path.write_bytes(model.SerializeToString())


def test_the_graph_is_compared_with_a_hash(certified_model, verify):
    sha256 = graph_identity.graph_sha256(certified_model)
    code, line = verify(certified_model, "--graph-sha256", sha256)
    assert code == PROVEN and "; the graph has the given hash; not checked: the kernels" in line
    code, line = verify(certified_model, "--graph-sha256", sha256[:-1], "--json")
    assert code == REFUSED
    assert json.loads(line)["proven"] is False
    assert json.loads(line)["graph_differences"] == [f"its hash is {sha256}, not {sha256[:-1]}"]


def test_an_empty_argument_is_no_absent_one(certified_model, verify):
    code, line = verify(certified_model, "--graph-sha256", "")
    assert code == REFUSED and "the graph differs: its hash is" in line
    assert verify(certified_model, "--certificate", "")[0] == FAILED


@pytest.mark.parametrize("arguments", [[], ["--graph"], ["--graph-sha256"]])
def test_foreign_files_are_refused_in_every_form(copy, verify, arguments):
    arguments = [*arguments, graph_identity.graph_sha256(copy)] if arguments == ["--graph-sha256"] else arguments
    (copy / "model.tflite").touch()
    (copy / "aot_packages").mkdir()
    code, line = verify(copy, *arguments)
    assert code == REFUSED
    assert line.startswith(
        "refused: addition is not proven: aot_packages is a folder that no certified model has (and 1 more), "
    )
    report = json.loads(verify(copy, "--json", *arguments)[1])
    assert (report["proven"], report["units"], len(report["foreign_files"])) == (False, None, 2)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index", CERTIFICATE])
def test_a_fifo_is_refused_and_never_opened(copy, verify, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    code, line = verify(copy)
    assert code == REFUSED and f"{name} is a FIFO, not a file" in line


def test_desktop_litter_is_ignored_and_reported(copy, verify):
    (copy / "variables" / ".DS_Store").touch()
    (copy / "._saved_model.pb").touch()
    code, line = verify(copy)
    assert code == PROVEN and "; ignored: ._saved_model.pb, variables/.DS_Store; " in line


@pytest.mark.parametrize("tamper", [forged_checkpoints.hide_in_value, forged_checkpoints.hide_behind_handle])
def test_a_checkpoint_that_hides_other_weights_is_refused(copy, verify, tamper):
    checkpoint = forged_checkpoints.Checkpoint.read(copy)
    tamper(checkpoint, random.Random(1))
    checkpoint.write(copy)
    code, line = verify(copy, "--graph")
    assert code == FAILED and "a restart point is not at an entry with a whole key" in line


@pytest.mark.slow
def test_with_the_graph_the_weights_are_compared_with_those_that_tensorflow_loads(copy, verify, monkeypatch):
    """Errors of the reader that no other check would find."""
    checkpoint = forged_checkpoints.Checkpoint.read(copy)
    forged_checkpoints.hide_in_value(checkpoint, random.Random(1))
    checkpoint.write(copy)
    monkeypatch.setattr(saved_weights, "_require_plain", lambda *_: None)
    monkeypatch.setattr(table, "read", lambda _: dict(checkpoint.entries))
    code, line = verify(copy)
    assert code == PROVEN, line
    code, line = verify(copy, "--graph")
    assert code == REFUSED
    reason = "TensorFlow loads a different U_r/.ATTRIBUTES/VARIABLE_VALUE than the checker reads (and 5 more)"
    assert line.startswith(f"refused: addition is not proven: {reason}")


def write(path, value):
    path.write_text(json.dumps(value))


def other_weights(model_dir):
    path = model_dir / CERTIFICATE
    write(path, certified.for_weights(certified.certificate(), certified.noisy(certified.weights(), 1e-6, seed=1)))


def forged_box(model_dir):
    forged = certified.certificate()
    forged["boxes"][0]["upper"][0] = forged["boxes"][0]["lower"][0]
    write(model_dir / CERTIFICATE, forged)


def truncated(model_dir):
    path = model_dir / CERTIFICATE
    path.write_text(path.read_text()[:-100])


@pytest.mark.parametrize(
    "change, arguments, words",
    [
        (other_weights, [], "it is for other weights, of hash "),
        (forged_box, [], "the image sticks out of every box"),
        (truncated, [], "not JSON: JSONDecodeError"),
        (lambda model_dir: (model_dir / CERTIFICATE).write_bytes(b"\xff\xfe\0"), [], "not JSON"),
        (lambda model_dir: (model_dir / CERTIFICATE).write_text("[" * 100_000), [], "nested too deeply"),
        (lambda model_dir: (model_dir / CERTIFICATE).unlink(), [], "assets.extra/certificate.json is missing"),
        (lambda model_dir: None, ["--task", "subtraction"], "the certificate is for 'addition', not for 'subtraction'"),
    ],
)
def test_an_unproven_model_is_refused(copy, verify, change, arguments, words):
    change(copy)
    code, line = verify(copy, *arguments)
    assert code == REFUSED
    assert line.startswith(f"refused: {arguments[-1] if arguments else 'addition'} is not proven: ") and words in line
    code, line = verify(copy, "--json", *arguments)
    assert (code, json.loads(line)["proven"]) == (REFUSED, False)


def test_weights_that_no_cell_has_are_refused(copy, verify):
    """A NaN in the model, with correct checksums."""
    import tensorflow as tf

    prefix = str(copy / "variables" / "variables")
    reader = tf.train.load_checkpoint(prefix)
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    values["b_o/.ATTRIBUTES/VARIABLE_VALUE"] = np.float32([np.nan])
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * len(values), tensors=list(values.values())
    )
    code, line = verify(copy)
    assert code == REFUSED and "b_o holds nan, not a float32" in line and "weights of no cell" in line
    assert json.loads(verify(copy, "--json")[1])["weights_sha256"] == ""


def damaged_index(model_dir):
    path = model_dir / "variables" / "variables.index"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


def truncated_data(model_dir):
    path = model_dir / "variables" / "variables.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "change, arguments, words",
    [
        (damaged_index, [], "variables.index is damaged: the checksum of the block at 0 does not match"),
        (truncated_data, [], "is it truncated?"),
        (
            lambda model_dir: (model_dir / "saved_model.pb").write_bytes(b"\x0a\xff"),
            [],
            "saved_model.pb is not a SavedModel, or is damaged",
        ),
        (shutil.rmtree, [], "is not a folder: name the folder that holds saved_model.pb"),
        (lambda model_dir: shutil.rmtree(model_dir / "variables"), [], "is this the folder of a SavedModel?"),
        (
            lambda model_dir: None,
            ["--certificate", "no-such-file.json"],
            "cannot read the certificate no-such-file.json: No such file",
        ),
        (lambda model_dir: None, ["--certificate", "."], "cannot read the certificate .: is not a regular file"),
    ],
)
def test_a_missing_model_or_certificate_is_a_failure(copy, verify, change, arguments, words):
    change(copy)
    code, line = verify(copy, *arguments)
    assert code == FAILED and line.startswith("bitsum: ") and words in line
