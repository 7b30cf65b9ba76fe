"""The Prover: its blessings and refusals, and that a model that is only evaluated is never the last blessed one."""

import dataclasses
import json
import logging
import pathlib
import random

import numpy as np
import pytest
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from benchmarks import forged_checkpoints
from components import progress, settings
from components.formats import table
from components.model import export
from components.model.gru import GRU
from components.proof import checker
from components.savedmodel import checkpoint as saved_weights
from components.steps import prover
from components.steps.artifacts import CertificateArtifact
from components.steps.last_blessed import LastBlessedModelStrategy
from tests.support import certified
from tests.support.cells import cell_of


def _model(folder: pathlib.Path, number: int = 1, cell_class=GRU, **changes: np.ndarray) -> standard_artifacts.Model:
    artifact = standard_artifacts.Model()
    artifact.uri, artifact.id = str(folder), number
    export.save(cell_of(kind=cell_class, **changes), path_utils.serving_model_path(artifact.uri))
    return artifact


def _prove(
    folder: pathlib.Path,
    model: standard_artifacts.Model,
    evaluated: int = 1,
    task: str = "addition",
    baseline=None,
    **knobs,
):
    """Run the executor as TFX runs it: (certificate, blessing, report)."""
    evaluation, certificate, blessing = (
        standard_artifacts.ModelBlessing(),
        CertificateArtifact(),
        standard_artifacts.ModelBlessing(),
    )
    evaluation.set_int_custom_property("blessed", evaluated)
    certificate.uri, blessing.uri = str(folder / "certificate"), str(folder / "blessing")
    properties = {
        "proof_knobs": json.dumps(dataclasses.asdict(settings.ProofSettings(**{"search_seconds": 10.0, **knobs}))),
        "task": task,
        "code": "hash",
        "span": 3,
    }
    outputs = {"certificate": [certificate], "blessing": [blessing]}
    inputs = {"model": [model], "evaluation": [evaluation]} | ({"baseline": [baseline]} if baseline else {})
    prover.Prover.EXECUTOR_SPEC.executor_class().Do(inputs, outputs, properties)
    return certificate, blessing, json.loads((folder / "certificate" / "report.json").read_text())


def test_a_certified_cell_is_proven_and_its_certificate_is_the_checkers(tmp_path, caplog):
    caplog.set_level(logging.INFO, progress.LOGGER)
    certificate, blessing, report = _prove(tmp_path, _model(tmp_path / "model", number=7))
    assert caplog.messages[-1] == f"picture of the proof: {tmp_path}/certificate/proof.svg"
    assert (tmp_path / "certificate" / "proof.svg").read_text().startswith("<svg")
    text = (tmp_path / "certificate" / "certificate.json").read_text()
    verdict = checker.check(text, certified.weights())
    assert verdict.proven and verdict.margin == report["margin"] == pytest.approx(certificate.margin)
    assert len(text) <= 50_000
    assert (certificate.proven, blessing.get_int_custom_property("blessed")) == (1, 1)
    assert blessing.get_int_custom_property("current_model_id") == 7
    assert (blessing.get_int_custom_property("span"), blessing.get_int_custom_property("margin_kept")) == (3, 1)


@pytest.mark.parametrize(("evaluated", "expected"), [(0, 0), (1, 1)])
def test_blessed_means_evaluated_and_proven(tmp_path, evaluated, expected):
    certificate, blessing, _ = _prove(tmp_path, _model(tmp_path / "model"), evaluated)
    assert (certificate.proven, blessing.get_int_custom_property("blessed")) == (1, expected)


def test_a_wrong_model_is_refused_with_two_numbers_that_it_gets_wrong(tmp_path):
    model = _model(tmp_path / "model", W_o=-certified.arrays(certified.weights())["W_o"])
    certificate, blessing, report = _prove(tmp_path, model)
    assert (certificate.proven, blessing.get_int_custom_property("blessed")) == (0, 0)
    assert not (tmp_path / "certificate" / "certificate.json").exists()
    assert report["reason"].startswith("wrong: it answers ")
    assert int(report["wrong"]["a"], 0) + int(report["wrong"]["b"], 0) == int(report["wrong"]["expected"], 0)


def test_a_model_for_addition_is_not_proven_to_subtract(tmp_path):
    certificate, blessing, _ = _prove(tmp_path, _model(tmp_path / "model"), task="subtraction")
    assert (certificate.proven, blessing.get_int_custom_property("blessed")) == (0, 0)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 0), (0.2, 1), (0.0, 1)])
def test_a_model_whose_margin_is_too_far_below_the_last_blessed_one_s_is_refused(tmp_path, share, expected):
    output = {name: certified.arrays(certified.weights())[name] for name in ("W_o", "b_o")}
    worse = _model(tmp_path / "model", **{name: value * np.float32(0.25) for name, value in output.items()})
    baseline = _model(tmp_path / "baseline")
    certificate, blessing, _ = _prove(tmp_path, worse, baseline=baseline, min_margin_ratio=share)
    assert (certificate.proven, blessing.get_int_custom_property("proven")) == (1, 1)
    found = [blessing.get_int_custom_property(name) for name in ("blessed", "margin_kept")]
    assert found == [expected, expected]
    reason, before = (blessing.get_string_custom_property(name) for name in ("reason", "baseline_margin"))
    margin = blessing.get_string_custom_property("margin")
    assert reason == (
        ""
        if expected
        else (
            f"proven, but its worst margin {margin} is less than 0.5 times (proof.min_margin_ratio) "
            f"the baseline's {before}"
        )
    )
    # The reverse comparison refuses nothing.
    assert _prove(tmp_path, baseline, baseline=worse, min_margin_ratio=1.0)[1].get_int_custom_property("blessed") == 1


class _Reversed(GRU):
    """The certified weights in a graph that computes the same numbers by other operations."""

    def advance(self, x_z, x_r, x_h, h):
        following = super().advance(x_z, x_r, x_h, h)
        return following * 1.0 + 0.0 * h


def test_certified_weights_in_another_graph_prove_nothing(tmp_path):
    certificate, blessing, report = _prove(tmp_path, _model(tmp_path / "model", cell_class=_Reversed))
    assert (certificate.proven, blessing.get_int_custom_property("blessed")) == (0, 0)
    assert report["reason"].startswith("not proven: the graph is not the cell's")


def test_if_the_proof_is_not_required_the_blessing_says_so(tmp_path):
    model = _model(tmp_path / "model", W_o=-certified.arrays(certified.weights())["W_o"])
    _, blessing, _ = _prove(tmp_path, model, required=False)
    names = ("blessed", "evaluated", "proven", "required")
    assert [blessing.get_int_custom_property(name) for name in names] == [1, 1, 0, 0]


def test_a_model_that_is_evaluated_but_not_proven_is_never_the_last_blessed_one(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    proven = _model(tmp_path / "1" / "model", number=1)
    only_evaluated = _model(tmp_path / "2" / "model", number=2, W_o=-certified.arrays(certified.weights())["W_o"])
    blessings = [
        _prove(tmp_path / str(number), model)[1] for number, model in enumerate((proven, only_evaluated), start=1)
    ]
    channels = {"model": [proven, only_evaluated], "model_blessing": blessings, "candidate": []}
    found = LastBlessedModelStrategy().resolve_artifacts(None, channels)
    assert [model.id for model in found["model"]] == [1]
    found = LastBlessedModelStrategy().resolve_artifacts(None, channels | {"candidate": [proven]})
    assert found["model"] == []


@pytest.mark.parametrize(
    ("margin", "before", "share", "enough", "words"),
    [
        (2.9, 6.0, 0.5, 6.0, "2.9 is less than 0.5 times (proof.min_margin_ratio) the baseline's 6"),
        (2.9, 17.0, 0.5, 6.0, "the baseline's 17, which counts as 6 (proof.margin_cap)"),
        (3.0, 17.0, 0.5, 6.0, ""),
        (3.0, 17.0, 0.5, 100.0, "3 is less than 0.5 times (proof.min_margin_ratio) the baseline's 17"),
        (0.1, 17.0, 0.0, 6.0, ""),
        (None, 17.0, 1.0, 6.0, ""),
        (0.1, None, 1.0, 6.0, ""),
    ],
)
def test_the_baselines_margin_counts_up_to_the_cap(margin, before, share, enough, words):
    refusal = prover.margin_refusal(margin, before, settings.ProofSettings(min_margin_ratio=share, margin_cap=enough))
    assert bool(refusal) == bool(words) and words in (refusal or "")


def test_a_model_with_a_file_that_no_certified_model_has_is_not_proven(tmp_path):
    model = _model(tmp_path / "model")
    (pathlib.Path(path_utils.serving_model_path(model.uri)) / "saved_model.mlir").touch()
    _, blessing, report = _prove(tmp_path, model)
    assert blessing.get_int_custom_property("blessed") == 0
    assert report["reason"] == "not proven: saved_model.mlir is a file that no certified model has (1 in all)"


def test_a_model_whose_weights_tensorflow_loads_differently_is_not_proven(tmp_path, monkeypatch):
    model = _model(tmp_path / "model")
    served = pathlib.Path(path_utils.serving_model_path(model.uri))
    checkpoint = forged_checkpoints.Checkpoint.read(served)
    forged_checkpoints.hide_in_value(checkpoint, random.Random(1))
    checkpoint.write(served)
    monkeypatch.setattr(table, "read", lambda _: dict(checkpoint.entries))
    monkeypatch.setattr(saved_weights, "_require_plain", lambda *_: None)
    _, blessing, report = _prove(tmp_path, model)
    assert blessing.get_int_custom_property("blessed") == 0
    difference = "TensorFlow loads a different U_r/.ATTRIBUTES/VARIABLE_VALUE than the checker reads"
    assert report["reason"] == f"not proven: {difference} (6 differences)"
