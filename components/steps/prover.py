"""The proof in the pipeline: the last word on a model is that it was evaluated AND proven.

Whoever asks for the last blessed model reads this blessing and no other.
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
from components.progress import report
from components.proof import attempt, picture
from components.proof import certificate as claims
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
    """Prove the model, or say why not; bless it if it is evaluated and proven (or the proof is not required).

    A proven model whose margin is too far below the baseline's (`margin_refusal`) is not blessed either.

    Args:
        evaluation: the Evaluator's blessing of the same model.
        baseline: the blessed model that the candidate is compared with, if there is one.
        proof_knobs: JSON of settings.ProofSettings.
        task: name of the transducer.
        span: of the run, for the runs of later spans.
        code: hash of the code, so that the cache knows of changes.
    """
    knobs = settings.ProofSettings.from_json(proof_knobs)
    served = path_utils.serving_model_path(model.uri)
    found = prove(served, knobs, task)
    folder = pathlib.Path(certificate.uri)
    folder.mkdir(parents=True, exist_ok=True)
    if found.certificate is not None:
        (folder / claims.FILE.name).write_text(found.certificate)
        drawn = picture.svg(checkpoint.read(served), claims.parse(found.certificate))
        (folder / PICTURE_FILE).write_text(drawn)
    (folder / REPORT_FILE).write_text(json.dumps(found.summary(), indent=1) + "\n")
    certificate.proven = int(found.proven)
    certificate.task = task
    certificate.margin = found.margin or 0.0

    evaluated = evaluation.get_int_custom_property(BLESSED)
    before = margin_of(baseline, task)
    worse = margin_refusal(found.margin, before, knobs)
    blessed = int(bool(evaluated) and (found.proven or not knobs.required) and not worse)
    values = {
        BLESSED: blessed,
        EVALUATED: evaluated,
        PROVEN: int(found.proven),
        REQUIRED: int(knobs.required),
        CURRENT_MODEL_ID: model.id,
    }
    values |= {MARGIN_KEPT: int(not worse), SPAN: span}
    for name, value in values.items():
        blessing.set_int_custom_property(name, value)
    blessing.set_string_custom_property(CURRENT_MODEL, model.uri)
    blessing.set_string_custom_property(REASON, printable(found.reason or worse or ""))
    blessing.set_string_custom_property(MARGIN, _shown(found.margin))
    blessing.set_string_custom_property(BASELINE_MARGIN, _shown(before))
    pathlib.Path(blessing.uri).mkdir(parents=True, exist_ok=True)
    (pathlib.Path(blessing.uri) / ("BLESSED" if blessed else "NOT_BLESSED")).touch()


def margin_of(model: standard_artifacts.Model | None, task: str) -> float | None:
    """The worst margin that the checker certifies for a model that was blessed before; None without one, or
    without a proof."""
    if model is None:
        return None
    return attempt.prove(checkpoint.read(path_utils.serving_model_path(model.uri)), TASKS[task]).margin


def margin_refusal(margin: float | None, before: float | None, knobs: settings.ProofSettings) -> str | None:
    """Why a worst margin of `margin` is too little beside `before`, that of the baseline; None if it is not, or one has
    none."""
    if margin is None or before is None or margin >= knobs.min_margin_ratio * min(before, knobs.margin_cap):
        return None
    counted = f", which counts as {knobs.margin_cap:g} (proof.margin_cap)" if before > knobs.margin_cap else ""
    return (
        f"proven, but its worst margin {_shown(margin)} is less than {knobs.min_margin_ratio:g} times (proof.min_margin_ratio) "
        f"the {_shown(before)} of the model it is compared with{counted}"
    )


def _shown(margin: float | None) -> str:
    return "" if margin is None else f"{margin:.6g}"


def prove(model: str, knobs: settings.ProofSettings, task: str) -> attempt.ProofAttempt:
    """The proof that the SavedModel in `model` computes `task`: of the weights that TensorFlow loads, and of its graph
    being the cell."""
    foreign = model_files.foreign(model)
    if foreign:
        return attempt.ProofAttempt(None, f"not proven: {foreign[0]} ({len(foreign)} such in all)")
    weights = checkpoint.read(model)
    others = loaded_weights.differences(model)
    if others:
        return attempt.ProofAttempt(None, f"not proven: {others[0]} ({len(others)} differences)")
    wrong_graph = expected_graph.differences(model, weights.units, TASKS[task], knobs)
    if wrong_graph:
        return attempt.ProofAttempt(
            None, f"not proven: the graph is not the cell's: {wrong_graph[0]} ({len(wrong_graph)} differences)"
        )
    found = attempt.attempt(weights, TASKS[task], _asked(model, task), knobs.search_seconds)
    report("prove", proven=int(found.proven), margin=found.margin or 0.0)
    return found


def _asked(model: str, task: str) -> attempt.Ask:
    """The model, asked through its signature for bits."""

    def ask(a: int, b: int, length: int) -> list[int]:
        verb = export_format.verb(TASKS[task], export_format.of(Graph(model)))
        function = tf.saved_model.load(model).signatures[signatures.bits(verb)]
        operands = {
            name: tf.constant([to_bits(value, length)], tf.int64)
            for name, value in ((signatures.A, a), (signatures.B, b))
        }
        return function(**operands)[signatures.SUM][0].numpy().tolist()

    return ask
