"""InfraValidator: serves the candidate, as it would be pushed, in the production model server and queries it by gRPC.

Replaces TFX's own InfraValidator, which supports only docker and Kubernetes and does not check the answers. The
blessing artifact is laid out as TFX's: it holds the model with its warmup requests, which the Pusher pushes.

A wrong answer, or an error that the server reports about the model (components.errors.MODEL_ERRORS), is a verdict. Any
other failure to get answers fails the step, which then runs again. A server that crashes is started once more; if it
crashes again, the model is refused without a blessing, which the cache would repeat even after the server is fixed.
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

from components import settings, signatures
from components.data import shards
from components.errors import MODEL_ERRORS, BitsumError, ModelError, Refusal
from components.model import activation_sweep
from components.printable import printable
from components.progress import report
from components.proof.certificate import FILE as CERTIFICATE_FILE
from components.properties import BLESSED, HAS_MODEL, REASON
from components.savedmodel import checkpoint, warmup
from components.steps import model_server
from components.steps.artifacts import CertificateArtifact

GATE = "infra validation"

REPORT_FILE = "report.json"

_BLESSED_FILE = "INFRA_BLESSED"
_NOT_BLESSED_FILE = "INFRA_NOT_BLESSED"

_MAX_CRASHES = 2
# If the load fails, TensorFlow Serving ends and says why, instead of retrying for five minutes.
_LOAD_ONCE = "--max_num_load_retries=0"
_UNAVAILABLE = "UNAVAILABLE"
# A crashing server may write a core file between the broken connection and the end of its process.
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
    """Serve the candidate, query it with `infra.examples` examples of every split, and bless it if every bit is right.

    A proven model is also queried with states inside the boxes of its certificate, which is pushed with it.

    Args:
        infra: JSON of settings.Infra.
        model_name: name under which the model is served.
        task: name of the model's task.
        code: hash of the code, for TFX's cache.

    Raises:
        Refusal: the server crashed twice, or its activations are outside the proof's bounds.
        BitsumError, OSError: a fault of a program, the disk or time, which says nothing about the model.
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
        shutil.copy(pathlib.Path(certificate.uri) / CERTIFICATE_FILE.name, _parent_made(stamped / CERTIFICATE_FILE))
    warmup_examples = first_examples(files, knobs.warmup_examples)
    try:
        warmup.write(stamped, warmup_examples, model_name)
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

    Returns {"server": kind, "splits": {split: report}, "crashes": errors of the server before its restart}.

    Raises:
        ModelError: the server reports that the model does not load.
        Refusal: the server crashed, and crashed again after a restart.
        BitsumError: the server did not start, the prober gave no report, or questions were not answered for lack of
            time or memory.
    """
    base = log.parent / "serving" / model_name
    base.mkdir(parents=True)
    # A copy, because a link would be broken inside a container.
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
                raise Refusal(
                    GATE, f"{crashes[0]}; after a restart, {crashes[1]}; the next run checks again"
                ) from crash
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
                f"--count={knobs.examples}",
                f"--model_name={model_name}",
                f"--task={task}",
            ]
            if (model / CERTIFICATE_FILE).exists():
                arguments += ["--certificate", str(model)]
            reports[split] = model_server.probe(knobs.probe_command, server.target, arguments, knobs.probe_timeout)
            if _UNAVAILABLE in _errors(reports[split]):
                server.check_alive(_DEATH_SECONDS)
            check_answered(reports[split], split)
            report("infra-validate", step=done, of=len(files), asked=sum(item["asked"] for item in reports.values()))
    return {"server": server.kind, "splits": reports}


def check_answered(result: dict[str, Any], split: str) -> None:
    """Raise BitsumError if questions in the prober's report `result` were not answered for reasons other than the
    model."""
    errors, boxes = _errors(result), result.get("boxes") or {"wrong": []}
    if result["wrong"] or boxes["wrong"] or errors.keys() & MODEL_ERRORS:
        return
    if errors or not 0 < result["asked"] == result["right"]:
        raise BitsumError(
            f"the server answered {result['right']} of {result['asked']} questions of split {split}; errors: {errors}; "
            f"the first: {result.get('first_error')}: this says nothing about the model, run again"
        )


def _errors(result: dict[str, Any]) -> dict[str, int]:
    """The number of unanswered questions in a report by gRPC code, including those from the boxes."""
    boxes = result.get("boxes") or {}
    return dict(collections.Counter(result["errors"]) + collections.Counter(boxes.get("errors", {})))


def qualify(model: pathlib.Path, knobs: settings.Infra, folder: pathlib.Path) -> dict[str, Any]:
    """The qualifier's report: whether the server's sigmoid and tanh, in the shapes of `model`, are within the proof's
    bounds.

    Raises:
        BitsumError: the server did not start or crashed, or the qualifier gave no report. Never a verdict: the server
            serves the sweep model here, not the candidate.
    """
    base = folder / "activations"
    activation_sweep.write(base, [checkpoint.read(model).units])
    try:
        with model_server.serving(
            knobs.serve_command, signatures.SWEEP_MODEL_NAME, base, folder / "qualify.log", knobs.start_timeout
        ) as server:
            result = model_server.probe(
                knobs.qualify_command,
                server.target,
                ["--model_name", signatures.SWEEP_MODEL_NAME],
                knobs.qualify_timeout,
            )
    except ModelError as error:
        raise BitsumError(f"the server does not serve the model that measures its activations: {error}") from error
    shutil.rmtree(base)
    report("infra-validate", activations=result["evaluated"], qualified=int(result["qualified"]))
    return result


def complaint(findings: dict[str, Any]) -> str | None:
    """The reason, in one line, why the findings of `validate` refuse the model; None if they do not."""
    for split, result in findings["splits"].items():
        asked, right, boxes = result["asked"], result["right"], result.get("boxes")
        if boxes and not 0 < boxes["asked"] == boxes["right"]:
            first = boxes["wrong"][0] if boxes["wrong"] else boxes["errors"]
            return (
                f"{boxes['asked'] - boxes['right']} of {boxes['asked']} steps are not as certified; the first: {first}"
            )
        if result["wrong"]:
            return (
                f"the {findings['server']} server answered {asked - right} of {asked} questions of split {split} "
                f"wrongly; the first: {result['wrong'][0]}"
            )
        if result["errors"] or not 0 < asked == right:
            return f"the server answered {right} of {asked} questions of split {split}; errors: {result['errors']}"
    return None


def check_kernels(findings: dict[str, Any]) -> None:
    """Raise Refusal if the server's activations are outside the proof's bounds: no verdict that TFX might cache."""
    server, kernels = findings["server"], findings["kernels"]
    if not kernels["qualified"]:
        problem = f"the {server} server's activations are outside the proof's bounds: {kernels['reason']}"
        raise Refusal(GATE, f"{problem}; the next run checks again")


def _parent_made(file: pathlib.Path) -> pathlib.Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def first_examples(files: dict[str, list[str]], count: int) -> list[bytes]:
    """Up to `count` records, equally many from the first file of each split."""
    per_split = math.ceil(count / len(files))
    readers = [tf.data.TFRecordDataset(names[:1], "GZIP").take(per_split) for names in files.values()]
    return [record for reader in readers for record in reader.as_numpy_iterator()][:count]
