"""`bitsum qualify` against a real server that runs the sweep model, honest and lying ones."""

import contextlib
import json

import pytest
import tensorflow as tf

from components.model import activation_sweep
from components.model.gru import GRU
from serving.client.sync import served
from serving.probing import qualifier
from serving.probing.qualification import MODEL_NAME
from tests.serving.conftest import bitsum, put, serving, wait_for
from tests.support import json_tables

UNITS = 16
FLAGS = ("--server=embedded", f"--model_name={MODEL_NAME}")
sigmoid = tf.sigmoid


def cell_with(sigmoid=sigmoid, tanh=tf.tanh):
    """`GRU.advance` with other activations."""

    def advance(self, x_z, x_r, x_h, h):
        z, r = sigmoid(x_z + h @ self.U_z), sigmoid(x_r + h @ self.U_r)
        return (1 - z) * h + z * tanh(x_h + (r * h) @ self.U_h)

    return advance


def bulged(x):
    """sigmoid, but 2**-16 more about 0."""
    return sigmoid(x) + tf.cast(tf.where(tf.abs(x) < 1, 2**-16, 0.0), x.dtype)


def rational_tanh(x):
    """tanh to about 2e-2."""
    return tf.where(tf.abs(x) < 3, x * (27 + x * x) / (27 + 9 * x * x), tf.sign(x))


def float32_only(results, errors, lowest):
    """Errors as a server sees them whose float64 is float32."""
    return tf.zeros_like(errors)


# name -> ((where, what, by what) replaced while the model is made, words of the refusal).
LIARS = {
    "float32 alone is wrong": (
        [(GRU, "advance", cell_with(tanh=rational_tanh))],
        ("tanh(", "off by", "the allowance of 32 u has to be 4 times"),
    ),
    "float64 is wrong as well": (
        [(GRU, "advance", cell_with(sigmoid=bulged)), (tf, "sigmoid", bulged)],
        ("sigmoid(", "off by 25", "the allowance of 16 u has to"),
    ),
    "float64 is only float32": (
        [(activation_sweep, "_marked", float32_only)],
        ("own float64 cannot be trusted", "off by 0 u"),
    ),
    "sigmoid never is 1": (
        [(GRU, "advance", cell_with(sigmoid=lambda x: tf.minimum(sigmoid(x), 1 - 2**-24)))],
        ("not exactly 1", "neither is seen alone"),
    ),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder that `bitsum qualify --export` writes."""
    folder = tmp_path_factory.mktemp("exported")
    code, out, err = bitsum("qualify", "--export", folder, "--units", UNITS)
    assert code == 0, err
    assert (
        out
        == f"wrote {folder}/1; serve it with: bitsum serve --model_name=bitsum-activations --model_base_path={folder}\n"
    )
    return folder


@pytest.fixture(scope="module")
def sweeping(exported, tmp_path_factory):
    """A server of version 1, the honest sweep model; `.folder` takes others."""
    folder = tmp_path_factory.mktemp("served")
    put(exported / "1", folder, 1)
    with serving(folder, *FLAGS) as running:
        running.folder = folder
        yield running


def test_an_honest_server_qualifies(sweeping):
    code, out, err = bitsum("qualify", sweeping.target, "--json")
    report = json.loads(out)
    json_tables.check("bitsum qualify", report)
    assert (code, err, report["qualified"], report["reason"]) == (0, "", True, "")
    assert (
        report["shapes"] == [[rows, UNITS] for rows in (1, 3, 64, 65, 2048)]
        and report["version"] == 1
        and not report["all_floats"]
    )
    assert report["evaluated"] > 500_000 and report["enclosed"] > 4 * 2 * 4000
    for name, allowance in (("sigmoid", 16), ("tanh", 32)):
        found = report["activations"][name]
        assert (
            found["allowance_u"] == allowance == pytest.approx(found["headroom"] * found["worst_u"])
            and found["headroom"] >= 4
        )
        assert abs(float.fromhex(found["at"])) < 20 and found["greatest"] == (1.0).hex()
    assert [report["activations"][name]["least"] for name in ("sigmoid", "tanh")] == [(0.0).hex(), (-1.0).hex()]


def test_the_report_for_people_is_a_line(sweeping):
    code, out, err = bitsum("qualify", sweeping.target, "--seed=7")
    assert (code, err, out.count("\n")) == (0, "", 1) and "tanh errs by" in out and out.endswith("; qualified\n")


@pytest.mark.parametrize("version, name", list(enumerate(LIARS, start=2)))
def test_a_server_that_is_wrong_or_lies_is_refused(sweeping, tmp_path, monkeypatch, version, name):
    replaced, words = LIARS[name]
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(monkeypatch.context())
        for where, what, by in replaced:
            patch.setattr(where, what, by)
        model = activation_sweep.write(tmp_path, [UNITS])
    put(model, sweeping.folder, version)
    wait_for(
        lambda: {item.version: item.state for item in served(sweeping.target, MODEL_NAME)}.get(version) == "AVAILABLE"
    )
    wait_for(lambda: len([item for item in served(sweeping.target, MODEL_NAME) if item.state == "AVAILABLE"]) == 1)
    found = qualifier.qualify(sweeping.target, points=600)
    assert found.version == version and not found.qualified and all(word in found.complaint for word in words), (
        found.complaint
    )


def test_a_refusal_is_told_by_exit_code_3(sweeping):
    """After the last of the lying models."""
    code, out, err = bitsum("qualify", sweeping.target, "--json")
    assert (code, err) == (3, "") and not json.loads(out)["qualified"]


def test_another_model_is_not_the_sweep_model(server):
    code, out, err = bitsum("qualify", server.target, "--model_name=bitsum")
    assert (code, out) == (1, "") and "has no signature sweep_UNITS: is it the sweep model?" in err
    code, out, err = bitsum("qualify", server.target)
    assert (code, out) == (1, "") and "Servable not found for request: Latest(bitsum-activations)" in err


def test_no_server():
    code, out, err = bitsum("qualify", "127.0.0.1:1", "--json")
    assert (
        (code, json.loads(out)["exit_code"]) == (1, 1)
        and "no model server answers at 127.0.0.1:1" in err
        and err.count("\n") == 1
    )


@pytest.mark.parametrize(
    "arguments",
    [[], ["127.0.0.1:1", "--export", "x"], ["127.0.0.1:1", "--deadline=0"], ["--export", "x", "--units", "0"]],
)
def test_wrong_usage(arguments):
    code, out, err = bitsum("qualify", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_an_export_over_a_model_is_refused_in_one_line(exported):
    code, out, err = bitsum("qualify", "--export", exported)
    assert (code, out, err.count("\n")) == (1, "", 1) and f"cannot write the sweep model to {exported}/1" in err
