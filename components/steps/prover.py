"""Prover: proves the model and gives the final blessing, for a model that was evaluated AND proven.

The resolvers of the last blessed model read only this blessing.
"""

import json
import pathlib

import tensorflow as tf
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components import settings, signatures
from components.model import expected_graph
from components.printable import printable
from components.progress import report, tell
from components.proof import attempt, picture
from components.proof.certificate import FILE as CERTIFICATE_FILE
from components.proof.certificate import parse
from components.properties import (
    BASELINE_MARGIN,
    BLESSED,
    CURRENT_MODEL,
    CURRENT_MODEL_ID,
    EVALUATED,
    MARGIN,
    MARGIN_KEPT,
    PROVEN,
    REASON,
    REQUIRED,
    SPAN,
)
from components.savedmodel import checkpoint, export_format, loaded_weights, model_files
from components.savedmodel.canonical_graph import Graph
from components.steps.artifacts import CertificateArtifact
from components.task.addition import to_bits
from components.task.transducer import TASKS

REPORT_FILE = "report.json"
PICTURE_FILE = "proof.svg"


@component
def Prover(
    model: InputArtifact[standard_artifacts.Model],
    evaluation: InputArtifact[standard_artifacts.ModelBlessing],
    certificate: OutputArtifact[CertificateArtifact],
    blessing: OutputArtifact[standard_artifacts.ModelBlessing],
    proof_knobs: Parameter[str],
    task: Parameter[str],
    code: Parameter[str],
    span: Parameter[int] = 0,
    baseline: InputArtifact[standard_artifacts.Model] = None,
) -> None:
    """Prove the model or record why not; bless it if it is evaluated and proven (or the proof is not required).

    A proven model whose margin is too far below the baseline's (`margin_refusal`) is not blessed.

    Args:
        evaluation: the Evaluator's blessing of the same model.
        baseline: the blessed model to compare the candidate with, if any.
        proof_knobs: JSON of settings.ProofSettings.
        task: name of the transducer.
        span: the run's span, for the runs of later spans.
        code: hash of the code, for TFX's cache.
    """
    knobs = settings.ProofSettings.from_json(proof_knobs)
    served = path_utils.serving_model_path(model.uri)
    proof = prove(served, knobs, task)
    folder = pathlib.Path(certificate.uri)
    folder.mkdir(parents=True, exist_ok=True)
    if proof.certificate is not None:
        (folder / CERTIFICATE_FILE.name).write_text(proof.certificate)
        (folder / PICTURE_FILE).write_text(picture.svg(checkpoint.read(served), parse(proof.certificate)))
        tell(f"picture of the proof: {folder / PICTURE_FILE}")
    (folder / REPORT_FILE).write_text(json.dumps(proof.summary(), indent=1) + "\n")
    certificate.proven = int(proof.proven)
    certificate.task = task
    certificate.margin = proof.margin or 0.0

    evaluated = evaluation.get_int_custom_property(BLESSED)
    before = margin_of(baseline, task)
    worse = margin_refusal(proof.margin, before, knobs)
    blessed = int(bool(evaluated) and (proof.proven or not knobs.required) and not worse)
    values = {
        BLESSED: blessed,
        EVALUATED: evaluated,
        PROVEN: int(proof.proven),
        REQUIRED: int(knobs.required),
        CURRENT_MODEL_ID: model.id,
    }
    values |= {MARGIN_KEPT: int(not worse), SPAN: span}
    for name, value in values.items():
        blessing.set_int_custom_property(name, value)
    blessing.set_string_custom_property(CURRENT_MODEL, model.uri)
    blessing.set_string_custom_property(REASON, printable(proof.reason or worse or ""))
    blessing.set_string_custom_property(MARGIN, _shown(proof.margin))
    blessing.set_string_custom_property(BASELINE_MARGIN, _shown(before))
    pathlib.Path(blessing.uri).mkdir(parents=True, exist_ok=True)
    (pathlib.Path(blessing.uri) / ("BLESSED" if blessed else "NOT_BLESSED")).touch()


def margin_of(model: standard_artifacts.Model | None, task: str) -> float | None:
    """The worst margin that the checker certifies for a previously blessed model; None without a model or a proof.

    The model is proven again although its blessing records a margin, so that both margins of a comparison come from
    the same finder and checker."""
    if model is None:
        return None
    return attempt.prove(checkpoint.read(path_utils.serving_model_path(model.uri)), TASKS[task]).margin


def margin_refusal(margin: float | None, before: float | None, knobs: settings.ProofSettings) -> str | None:
    """The reason why `margin` is too small beside `before`, the baseline's; None if it is not, or one is None."""
    if margin is None or before is None or margin >= knobs.min_margin_ratio * min(before, knobs.margin_cap):
        return None
    counted = f", which counts as {knobs.margin_cap:g} (proof.margin_cap)" if before > knobs.margin_cap else ""
    return (
        f"proven, but its worst margin {_shown(margin)} is less than {knobs.min_margin_ratio:g} times "
        f"(proof.min_margin_ratio) the baseline's {_shown(before)}{counted}"
    )


def _shown(margin: float | None) -> str:
    return "" if margin is None else f"{margin:.6g}"


def prove(model: str, knobs: settings.ProofSettings, task: str) -> attempt.ProofAttempt:
    """The proof that the SavedModel in `model` computes `task`; it covers the weights that TensorFlow loads and the
    graph."""
    foreign = model_files.foreign(model)
    if foreign:
        return attempt.ProofAttempt(None, f"not proven: {foreign[0]} ({len(foreign)} in all)")
    weights = checkpoint.read(model)
    wrong_weights = loaded_weights.differences(model)
    if wrong_weights:
        return attempt.ProofAttempt(None, f"not proven: {wrong_weights[0]} ({len(wrong_weights)} differences)")
    wrong_graph = expected_graph.differences(model, weights.units, TASKS[task], knobs)
    if wrong_graph:
        return attempt.ProofAttempt(
            None, f"not proven: the graph is not the cell's: {wrong_graph[0]} ({len(wrong_graph)} differences)"
        )
    proof = attempt.attempt(weights, TASKS[task], _ask(model, task), knobs.search_seconds)
    report("prove", proven=int(proof.proven), margin=proof.margin or 0.0)
    return proof


def _ask(model: str, task: str) -> attempt.Ask:
    """A function that queries the model through its signature for bits."""

    def ask(a: int, b: int, length: int) -> list[int]:
        verb = export_format.verb(TASKS[task], export_format.of(Graph(model)))
        function = tf.saved_model.load(model).signatures[signatures.bits(verb)]
        operands = {
            name: tf.constant([to_bits(value, length)], tf.int64)
            for name, value in ((signatures.A, a), (signatures.B, b))
        }
        return function(**operands)[signatures.SUM][0].numpy().tolist()

    return ask
