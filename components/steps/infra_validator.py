"""Infra validation: the candidate, as it would be pushed, in the model server that will be used, asked over gRPC.

Takes the place of TFX's own InfraValidator, which knows docker and Kubernetes only and asks nothing of the answers. The
blessing artifact is laid out as TFX's: it holds the model with its warmup requests, and that is what the Pusher pushes.

A wrong answer, and an error that the server reports about the model (components.errors.MODEL_ERRORS), is a verdict.
Whatever else keeps questions from being answered fails the step, which then runs again. A server that crashes is
started once more; if it crashes again the model is refused, but no blessing says so, which the cache would repeat for a
server that was mended since.
"""

import collections
import json
import math
import os
import pathlib
import shutil
from typing import Any

import tensorflow as tf
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components import settings
from components.data import shards
from components.errors import MODEL_ERRORS, BitsumError, ModelError, Refusal
from components.model import activation_sweep
from components.printable import printable
from components.progress import report
from components.proof import certificate as claims
from components.savedmodel import checkpoint, warmup
from components.steps import model_server
from components.steps.artifacts import CertificateArtifact

GATE = "infra validation"

BLESSED = "blessed"
HAS_MODEL = "has_model"
REASON = "reason"
REPORT_FILE = "report.json"

_ACTIVATIONS = "bitsum-activations"
_BLESSED_FILE = "INFRA_BLESSED"
_NOT_BLESSED_FILE = "INFRA_NOT_BLESSED"

_MAX_CRASHES = 2
# One load of one version: when it fails TensorFlow Serving ends and says why, instead of trying again for five minutes.
_LOAD_ONCE = "--max_num_load_retries=0"
_UNAVAILABLE = "UNAVAILABLE"
# Between a connection that breaks and the end of the server's process a core file may be written.
_DEATH_SECONDS = 10.0


@component
def InfraValidator(
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    certificate: InputArtifact[CertificateArtifact],
    blessing: OutputArtifact[standard_artifacts.InfraBlessing],
    infra: Parameter[str],
    model_name: Parameter[str],
    task: Parameter[str],
    code: Parameter[str],
) -> None:
    """Serve the candidate, ask it `infra.examples` questions of every split, and bless it if every bit is right.

    A proven model is also asked from inside the boxes of its certificate, which it takes along; another one on the data
    alone.

    Args:
        infra: JSON of settings.Infra.
        model_name: name under which the model is served.
        task: name of what the model is to compute.
        code: hash of the code, so that the cache knows of changes.

    Raises:
        Refusal: the server crashed twice, or its activations are not those that the proof allows.
        BitsumError, OSError: a program, the disk, the time: it says nothing of the model.
    """
    knobs = settings.Infra.from_json(infra)
    folder = pathlib.Path(blessing.uri)
    files = {
        split: [os.path.join(examples.uri, name) for name in shards.split_files(examples.uri, split)]
        for split in artifact_utils.decode_split_names(examples.split_names)
    }
    stamped = pathlib.Path(path_utils.stamped_model_path(blessing.uri))
    shutil.copytree(path_utils.serving_model_path(model.uri), stamped)
    if certificate.proven:
        shutil.copy(pathlib.Path(certificate.uri) / claims.FILE.name, _parent_made(stamped / claims.FILE))
    asked_while_loading = first_examples(files, knobs.warmup_examples)
    try:
        warmup.write(stamped, asked_while_loading, model_name)
        findings = validate(stamped, files, knobs, model_name, task, folder / "server.log")
        if certificate.proven:
            findings["kernels"] = qualify(stamped, knobs, folder)
            check_kernels(findings)
        reason = complaint(findings)
    except ModelError as error:
        findings, reason = {}, str(error)
    (folder / REPORT_FILE).write_text(json.dumps({REASON: reason or "", **findings}, indent=2) + "\n")
    (folder / (_NOT_BLESSED_FILE if reason else _BLESSED_FILE)).touch()
    blessing.set_int_custom_property(BLESSED, 0 if reason else 1)
    blessing.set_int_custom_property(HAS_MODEL, 1)
    blessing.set_string_custom_property(REASON, printable(reason or ""))


def validate(
    model: pathlib.Path,
    files: dict[str, list[str]],
    knobs: settings.Infra,
    model_name: str,
    task: str,
    log: pathlib.Path,
) -> dict[str, Any]:
    """Serve `model` alone and probe it with the records of each split.

    Gives {"server": kind, "splits": {split: report}, "crashes": how the server ended before it was started again}.

    Raises:
        ModelError: the server says that the model does not load. Refusal: the server crashed, and when it was started
        again it crashed again. BitsumError: it did not come up, the prober gave no report, or questions were not
        answered for want of time or memory.
    """
    base = log.parent / "serving" / model_name
    base.mkdir(parents=True)
    # A copy: a link would lead nowhere inside a container.
    shutil.copytree(model, base / "1")
    crashes: list[str] = []
    while True:
        try:
            findings = _served_and_asked(model, base, files, knobs, model_name, task, log)
            break
        except model_server.ServerCrashed as crash:
            crashes.append(str(crash))
            report("infra-validate", crashes=len(crashes))
            if len(crashes) == _MAX_CRASHES:
                raise Refusal(GATE, f"{crashes[0]}; started again, {crashes[1]}; the next run looks again") from crash
    shutil.rmtree(base.parent)
    return {**findings, "crashes": crashes}


def _served_and_asked(
    model: pathlib.Path,
    base: pathlib.Path,
    files: dict[str, list[str]],
    knobs: settings.Infra,
    model_name: str,
    task: str,
    log: pathlib.Path,
) -> dict[str, Any]:
    reports = {}
    with model_server.serving([*knobs.serve_command, _LOAD_ONCE], model_name, base, log, knobs.start_timeout) as server:
        for done, (split, names) in enumerate(files.items(), start=1):
            arguments = [
                "--examples",
                *names,
                "--count",
                str(knobs.examples),
                "--model_name",
                model_name,
                "--task",
                task,
            ]
            if (model / claims.FILE).exists():
                arguments += ["--certificate", str(model)]
            reports[split] = model_server.probe(knobs.probe_command, server.target, arguments, knobs.probe_timeout)
            if _UNAVAILABLE in _errors(reports[split]):
                server.check_alive(_DEATH_SECONDS)
            check_answered(reports[split], split)
            report("infra-validate", step=done, of=len(files), asked=sum(item["asked"] for item in reports.values()))
    return {"server": server.kind, "splits": reports}


def check_answered(found: dict[str, Any], split: str) -> None:
    """Raise BitsumError if questions of the prober's report `found` were not answered, and nothing in it is about the
    model."""
    errors, boxes = _errors(found), found.get("boxes") or {"wrong": []}
    if found["wrong"] or boxes["wrong"] or errors.keys() & MODEL_ERRORS:
        return
    if errors or not 0 < found["asked"] == found["right"]:
        told = f"the server answered {found['right']} of {found['asked']} questions of split {split}"
        raise BitsumError(
            f"{told}; errors: {errors}; the first: {found.get('first_error')}: this says nothing of the model, run again"
        )


def _errors(found: dict[str, Any]) -> dict[str, int]:
    """How many questions of a report were not answered, by gRPC code, those from the boxes included."""
    return dict(
        collections.Counter(found["errors"]) + collections.Counter((found.get("boxes") or {}).get("errors", {}))
    )


def qualify(model: pathlib.Path, knobs: settings.Infra, folder: pathlib.Path) -> dict[str, Any]:
    """Whether the server's sigmoid and tanh are within what the proof allows, in the shapes of `model`: the prober's
    report.

    Raises:
        BitsumError: the server did not come up, or crashed, or the program gave no report. The model that is served
        here is ours.
    """
    base = folder / "activations"
    activation_sweep.write(base, [checkpoint.read(model).units])
    try:
        with model_server.serving(
            knobs.serve_command, _ACTIVATIONS, base, folder / "qualify.log", knobs.start_timeout
        ) as server:
            found = model_server.probe(
                knobs.qualify_command, server.target, ["--model_name", _ACTIVATIONS], knobs.qualify_timeout
            )
    except ModelError as error:
        raise BitsumError(f"the model that measures the server's activations is not served: {error}") from error
    shutil.rmtree(base)
    report("infra-validate", activations=found["evaluated"], qualified=int(found["qualified"]))
    return found


def complaint(findings: dict[str, Any]) -> str | None:
    """Why the findings of `validate` refuse the model, in one line; None where they do not."""
    for split, found in findings["splits"].items():
        boxes = found.get("boxes")
        if boxes and not 0 < boxes["asked"] == boxes["right"]:
            first = boxes["wrong"][0] if boxes["wrong"] else boxes["errors"]
            return f"{boxes['asked'] - boxes['right']} of {boxes['asked']} steps are not as certified, the first being {first}"
        if found["wrong"]:
            first = found["wrong"][0]
            return (
                f"the {findings['server']} server answered {found['asked'] - found['right']} of {found['asked']} questions of split "
                f"{split} wrongly, the first being {first}"
            )
        if found["errors"] or not 0 < found["asked"] == found["right"]:
            return f"the server answered {found['right']} of {found['asked']} questions of split {split}; errors: {found['errors']}"
    return None


def check_kernels(findings: dict[str, Any]) -> None:
    """Raise Refusal if the server's activations are outside of the proof: it says nothing of the model, so no cache
    keeps it."""
    if not findings["kernels"]["qualified"]:
        told = f"the {findings['server']} server's activations are not those that the proof allows: {findings['kernels']['reason']}"
        raise Refusal(GATE, f"{told}; the next run looks again")


def _parent_made(file: pathlib.Path) -> pathlib.Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def first_examples(files: dict[str, list[str]], count: int) -> list[bytes]:
    """`count` records, the same number of the first file of each split, or fewer where a file has fewer."""
    per_split = math.ceil(count / len(files))
    readers = [tf.data.TFRecordDataset(names[:1], "GZIP").take(per_split) for names in files.values()]
    return [record for reader in readers for record in reader.as_numpy_iterator()][:count]
