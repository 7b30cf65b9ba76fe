"""Pusher: a model with every blessing becomes the next version in the folder that the model server watches.

Replaces TFX's own Pusher, which names versions by the second, drops the second of two pushes in one second but records
it, and leaves a half-written version when it is killed.
"""

import json
import logging
import pathlib
from typing import Any, ClassVar

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel, component_spec, standard_artifacts
from tfx.utils import path_utils

from components import atomic
from components.errors import BitsumError
from components.progress import report
from components.proof import certificate
from components.properties import BLESSED, DESTINATION, IS_NEW, PUSHED, VERSION
from components.savedmodel import fingerprint, graph_identity, push_order, version_folder

LOGGER = logging.getLogger(__name__)


class PusherSpec(component_spec.ComponentSpec):
    """Inputs, outputs and parameters of the Pusher."""

    PARAMETERS: ClassVar = {
        "destination": component_spec.ExecutionParameter(type=str),
        "task": component_spec.ExecutionParameter(type=str),
        "config_hash": component_spec.ExecutionParameter(type=str),
        "code": component_spec.ExecutionParameter(type=str),
        "span": component_spec.ExecutionParameter(type=int),
        "span_date": component_spec.ExecutionParameter(type=str),
        "allow_older": component_spec.ExecutionParameter(type=int),
    }
    INPUTS: ClassVar = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model_blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing),
    }
    OUTPUTS: ClassVar = {"pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel)}


class Executor(base_executor.BaseExecutor):
    """Pushes the model that infra validation served, if both blessings are positive."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """Push the model or record that it was not pushed. Raises: BitsumError, OSError."""
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        blessings = [
            artifact_utils.get_single_instance(input_dict[key]) for key in ("model_blessing", "infra_blessing")
        ]
        if not all(blessing.get_int_custom_property(BLESSED) for blessing in blessings):
            pushed_model.set_int_custom_property(PUSHED, 0)
            return
        model = path_utils.stamped_model_path(blessings[1].uri)
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        destination, task = pathlib.Path(exec_properties["destination"]), exec_properties["task"]
        span, date = exec_properties["span"], exec_properties["span_date"]
        identity = fingerprint.fingerprint(model)
        check_task(destination, task)
        if not exec_properties["allow_older"]:
            push_order.check(destination, span, identity, fingerprint.weights_sha256(model), date)
        trained = path_utils.serving_model_path(artifact_utils.get_single_instance(input_dict["model"]).uri)
        origin = {
            "task": task,
            push_order.SPAN: span,
            **({push_order.SPAN_DATE: date} if date else {}),
            push_order.ANCESTORS: push_order.ancestors(trained),
            "graph_sha256": graph_identity.graph_sha256(model),
            "certificate": str(certificate.FILE) if pathlib.Path(model, certificate.FILE).exists() else "",
            "run": self._context.pipeline_run_id if self._context else "",
            "data_sha256": version_folder.sha256_of_files(pathlib.Path(examples.uri)),
            "config_sha256": exec_properties["config_hash"],
            "code_sha256": exec_properties["code"],
        }
        done = version_folder.push(pathlib.Path(model), destination, identity, origin)
        report("push", version=done.version, new=done.is_new)
        record(pushed_model, done)


def check_task(destination: pathlib.Path, task: str) -> None:
    """Raise BitsumError if the newest version in `destination` computes another task, which its clients expect."""
    newest = max(version_folder.versions(destination), default=0)
    served = version_folder.manifest(destination / str(newest)).get("origin", {}).get("task", task)
    if served != task:
        raise BitsumError(
            f"{destination} holds versions for {served}, this model is for {task}: set serve.model_name to another name"
        )


def record(pushed_model: standard_artifacts.PushedModel, done: version_folder.Pushed) -> None:
    """Record the pushed version in the artifact, under TFX's property names, and copy its manifest there.

    The version is already visible, so a failure to copy the manifest is only a warning.
    """
    pushed_model.set_int_custom_property(PUSHED, 1)
    pushed_model.set_int_custom_property(IS_NEW, int(done.is_new))
    pushed_model.set_string_custom_property(DESTINATION, str(done.path))
    pushed_model.set_string_custom_property(VERSION, str(done.version))
    folder = pathlib.Path(pushed_model.uri)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write(
            folder / version_folder.MANIFEST.name, json.dumps(version_folder.manifest(done.path), indent=2) + "\n"
        )
    except (OSError, BitsumError) as error:
        LOGGER.warning("version %s is pushed; its manifest cannot be copied to %s: %s", done.version, folder, error)


class Pusher(base_component.BaseComponent):
    """Pushes the model to `destination`, a folder of versions, unless its newest version is the same model."""

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: channel.BaseChannel,
        examples: channel.BaseChannel,
        model_blessing: channel.BaseChannel,
        infra_blessing: channel.BaseChannel,
        *,
        destination: str,
        task: str,
        config_hash: str,
        code: str,
        span: int = 0,
        span_date: str = "",
        allow_older: bool = False,
    ):
        """Takes the input channels, the folder of versions, the model's task, the hashes for the manifest, and the span
        with the date that it was given as, if it was.

        With `allow_older`, a model that `push_order` would refuse is pushed as well.
        """
        super().__init__(
            PusherSpec(
                model=model,
                examples=examples,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                destination=destination,
                task=task,
                config_hash=config_hash,
                code=code,
                span=span,
                span_date=span_date,
                allow_older=int(allow_older),
                pushed_model=channel.Channel(type=standard_artifacts.PushedModel),
            )
        )
