"""Infra validation: the candidate, as it would be pushed, in the model server that will be used, asked over gRPC.

Takes the place of TFX's own InfraValidator, which knows docker and Kubernetes only and asks nothing of the answers. The
blessing artifact is laid out as TFX's: it holds the model with its warmup requests, and that is what the Pusher pushes.
"""

import json
import pathlib
import shutil
from typing import Any

import tensorflow as tf
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components import model_server, settings, warmup
from components.errors import BitsumError
from components.progress import report

BLESSED = "blessed"
HAS_MODEL = "has_model"
REASON = "reason"
REPORT_FILE = "report.json"

_BLESSED_FILE = "INFRA_BLESSED"
_NOT_BLESSED_FILE = "INFRA_NOT_BLESSED"


@component
def InfraValidator(
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    blessing: OutputArtifact[standard_artifacts.InfraBlessing],
    infra: Parameter[str],
    model_name: Parameter[str],
    code: Parameter[str],
) -> None:
    """Serve the candidate, ask it `infra.examples` sums of every split, and bless it if every bit is right.

    Args:
        infra: JSON of settings.Infra.
        model_name: name under which the model is served.
        code: hash of the code, so that the cache knows of changes.
    """
    knobs = settings.Infra(**json.loads(infra))
    folder = pathlib.Path(blessing.uri)
    files = {split: split_files(examples, split) for split in artifact_utils.decode_split_names(examples.split_names)}
    stamped = pathlib.Path(path_utils.stamped_model_path(blessing.uri))
    shutil.copytree(path_utils.serving_model_path(model.uri), stamped)
    try:
        warmup.write(stamped, first_examples(files, knobs.warmup_examples), model_name)
        findings = validate(stamped, files, knobs, model_name, folder / "server.log")
        reason = complaint(findings)
    except (BitsumError, KeyError, OSError, ValueError) as error:
        findings, reason = {}, str(error) or type(error).__name__
    (folder / REPORT_FILE).write_text(json.dumps({REASON: reason, **findings}, indent=2) + "\n")
    (folder / (_NOT_BLESSED_FILE if reason else _BLESSED_FILE)).touch()
    blessing.set_int_custom_property(BLESSED, 0 if reason else 1)
    blessing.set_int_custom_property(HAS_MODEL, 1)
    blessing.set_string_custom_property(REASON, reason)


def validate(
    model: pathlib.Path, files: dict[str, list[str]], knobs: settings.Infra, model_name: str, log: pathlib.Path
) -> dict[str, Any]:
    """Serve `model` alone and probe it with the records of each split; {"server": kind, "splits": {split: report}}.

    Raises:
        BitsumError: the server did not come up, or the prober gave no report.
    """
    base = log.parent / "serving" / model_name
    base.mkdir(parents=True)
    # A copy: a link would lead nowhere inside a container.
    shutil.copytree(model, base / "1")
    reports = {}
    with model_server.serving(knobs.serve_command, model_name, base, log, knobs.start_timeout) as server:
        for done, (split, names) in enumerate(files.items(), start=1):
            arguments = ["--examples", *names, "--count", str(knobs.examples), "--model_name", model_name]
            reports[split] = model_server.probe(knobs.probe_command, server.target, arguments, knobs.probe_timeout)
            report("infra-validate", step=done, of=len(files), asked=sum(item["asked"] for item in reports.values()))
        kind = server.kind
    shutil.rmtree(base.parent)
    return {"server": kind, "splits": reports}


def complaint(findings: dict[str, Any]) -> str:
    """Why the findings of `validate` refuse the model, in one line; empty where they do not."""
    for split, found in findings["splits"].items():
        if found["wrong"]:
            first = found["wrong"][0]
            return (
                f"the {findings['server']} server answered {found['asked'] - found['right']} of {found['asked']} sums of split "
                f"{split} wrongly, the first being {first}"
            )
        if found["errors"] or not 0 < found["asked"] == found["right"]:
            return f"the server answered {found['right']} of {found['asked']} sums of split {split}; errors: {found['errors']}"
    return ""


def split_files(examples: standard_artifacts.Examples, split: str) -> list[str]:
    """The TFRecord files of a split."""
    return sorted(tf.io.gfile.glob(f"{artifact_utils.get_split_uri([examples], split)}/data_tfrecord-*"))


def first_examples(files: dict[str, list[str]], count: int) -> list[bytes]:
    """The first `count` records, taken in turn from the first file of each split."""
    readers = [tf.data.TFRecordDataset(names[:1], "GZIP").take(count).as_numpy_iterator() for names in files.values()]
    per_split = -(-count // len(readers))
    return [record for reader in readers for _, record in zip(range(per_split), reader)][:count]
