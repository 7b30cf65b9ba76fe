"""`bitsum qualify` against a real server with a right and a wrong sweep model."""

import json

import pytest
import tensorflow as tf

from components.model import activation_sweep
from pipeline import cli
from serving.client.sync import served
from serving.commands import qualify
from serving.probing import qualifier
from serving.probing.qualification import MODEL_NAME
from tests.serving.conftest import bitsum, put, serving
from tests.serving.probing.test_qualifier import Server
from tests.support import json_tables
from tests.support.cells import cell_with
from tests.support.waiting import wait_for

UNITS = 16
FLAGS = ("--server=embedded", f"--model_name={MODEL_NAME}")


def rational_tanh(x):
    """tanh to about 2e-2."""
    # Rounding may take the quotient beyond 1 where x is nearly 3.
    return tf.clip_by_value(tf.where(tf.abs(x) < 3, x * (27 + x * x) / (27 + 9 * x * x), tf.sign(x)), -1, 1)


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
    """A server with the right sweep model as version 1; `.folder` takes further versions."""
    folder = tmp_path_factory.mktemp("served")
    put(exported / "1", folder, 1)
    with serving(folder, *FLAGS) as running:
        running.folder = folder
        yield running


def test_an_accurate_server_qualifies(sweeping):
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
        activation = report["activations"][name]
        assert (
            activation["allowance_u"] == allowance == pytest.approx(activation["headroom"] * activation["worst_u"])
            and activation["headroom"] >= 4
        )
        assert abs(float.fromhex(activation["at"])) < 20 and activation["greatest"] == (1.0).hex()
    assert [report["activations"][name]["least"] for name in ("sigmoid", "tanh")] == [(0.0).hex(), (-1.0).hex()]


def test_the_text_report_is_one_line(sweeping):
    code, out, err = bitsum("qualify", sweeping.target, "--seed=7")
    assert (code, err, out.count("\n")) == (0, "", 1) and "tanh errs by" in out and out.endswith("; qualified\n")


def test_a_server_that_is_wrong_is_refused(sweeping, tmp_path):
    put(activation_sweep.write(tmp_path, [UNITS], cell_with(tanh=rational_tanh)), sweeping.folder, 2)
    wait_for(lambda: [item.version for item in served(sweeping.target, MODEL_NAME) if item.state == "AVAILABLE"] == [2])
    code, out, err = bitsum("qualify", sweeping.target, "--json")
    report = json.loads(out)
    assert (code, err, report["version"], report["qualified"]) == (3, "", 2, False)
    for words in ("tanh(", "off by", "the allowance of 32 u must be 4 times"):
        assert words in report["reason"]


def test_progress_is_shown_without_a_terminal_and_hidden_with_q(monkeypatch, capfd):
    monkeypatch.setattr(qualifier, "Connection", lambda *_, **__: Server())
    monkeypatch.setattr(Server, "close", lambda _: None, raising=False)
    monkeypatch.setattr(qualify, "_PROGRESS_SECONDS", 0.0)
    assert cli.main(["qualify", "somewhere:1", "--all-floats"]) == 0
    output = capfd.readouterr()
    first, *_, last = output.err.splitlines()
    assert first.startswith("    qualify: 1 of 266 calls, sigmoid u ") and last.startswith(
        "    qualify: 266 of 266 calls"
    )
    assert output.out.count("\n") == 1
    assert cli.main(["qualify", "somewhere:1", "--all-floats", "-q"]) == 0
    assert capfd.readouterr().err == ""


def test_another_model_is_refused(server):
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
