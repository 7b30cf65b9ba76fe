"""Run one node in a container of Kubeflow Pipelines: the command of every container that `bitsum compile` writes.

Replaces TFX's own entry point, which does not know our artifact types, and opens artifacts at their storage URI instead
of where the launcher of Kubeflow Pipelines mounted them; it cannot open minio:// at all. The flags and files are those
of TFX's entry point.
"""

import argparse
import logging
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from components import arithmetic_switches
from components.errors import BitsumError
from components.log_lines import LineHandler
from components.printable import say
from pipeline.commands.compile import NAMESPACE, RUN_ID
from pipeline.log_capture import LOG_FORMAT

if TYPE_CHECKING:
    from kfp.pipeline_spec import pipeline_spec_pb2

LOGGER = logging.getLogger(__name__)

# The mount point of each storage scheme (kubeflow/pipelines, backend/src/v2/component/launcher_v2.go).
MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node; the exit code of components.errors."""
    parser = argparse.ArgumentParser(
        prog="pipeline.kubeflow.container", description=__doc__.partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--executor_class_path", required=True, help="the executor, as MODULE.CLASS")
    parser.add_argument("--json_serialized_invocation_args", required=True, help="the ExecutorInput, as JSON")
    parser.add_argument("--json_serialized_inputs_spec_args", required=True, help="the ComponentInputsSpec, as JSON")
    args, beam_args = parser.parse_known_args(arguments)
    logging.basicConfig(level=logging.INFO, handlers=[LineHandler(sys.stderr, LOG_FORMAT, newline="\n    ")])
    if note := arithmetic_switches.clear():
        LOGGER.warning("%s", note)
    # Beam parses the command line of the program for its own options.
    sys.argv = sys.argv[:1]
    # The compiled pipeline names project files by relative path.
    os.chdir(pathlib.Path(__file__).parents[2])
    try:
        run(
            args.executor_class_path,
            args.json_serialized_invocation_args,
            args.json_serialized_inputs_spec_args,
            beam_args,
        )
    except BitsumError as error:
        say(f"bitsum: {error}", stream=sys.stderr)
        return error.exit_code
    return 0


def run(executor_class_path: str, invocation: str, inputs_spec: str, beam_args: list[str]) -> None:
    """Run an executor on the artifacts of `invocation`, and write its ExecutorOutput.

    Raises:
        Exception: the executor's own error.
    """
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as entrypoint
    from tfx.orchestration.portable import outputs_utils
    from tfx.utils import import_utils

    _register_artifact_types()
    request = json_format.Parse(invocation, pipeline_spec_pb2.ExecutorInput(), ignore_unknown_fields=True)
    spec = json_format.Parse(inputs_spec, pipeline_spec_pb2.ComponentInputsSpec(), ignore_unknown_fields=True)
    stored = _localized(request.outputs.artifacts)
    _localized(request.inputs.artifacts)
    names: dict[int, str] = {}
    inputs = entrypoint.parse_raw_artifact_dict(request.inputs.artifacts, names)
    outputs = entrypoint.parse_raw_artifact_dict(request.outputs.artifacts, names)
    parameters = entrypoint.parse_execution_properties(request.inputs.parameter_values, request.inputs.parameters, spec)

    output_file = pathlib.Path(request.outputs.output_file)
    executor = import_utils.import_class_by_path(executor_class_path)
    beam = {"beam_pipeline_args": beam_args} if issubclass(executor, BaseBeamExecutor) else {}
    folder = output_file.parent
    context = executor.Context(
        tmp_dir=str(folder / ".temp"), unique_id=folder.name, pipeline_run_id=parameters.pop(RUN_ID, ""), **beam
    )
    executor(context).Do(inputs, outputs, parameters)

    outputs_utils.tag_output_artifacts_with_version(outputs)
    result = pipeline_spec_pb2.ExecutorOutput()
    for name, artifacts in entrypoint.translate_executor_output(outputs, names).items():
        artifacts.artifacts[0].uri = stored[name]
        result.artifacts[name].CopyFrom(artifacts)
    folder.mkdir(parents=True, exist_ok=True)
    output_file.write_text(json_format.MessageToJson(result))


def local_path(uri: str) -> str:
    """The path of `uri` in the container: /minio/bucket/run/model for minio://bucket/run/model."""
    for scheme, mount in MOUNTS.items():
        if uri.startswith(scheme):
            return mount + uri.removeprefix(scheme)
    return uri


def _localized(artifacts: "Mapping[str, pipeline_spec_pb2.ArtifactList]") -> dict[str, str]:
    """Replace the URIs of all artifacts by paths in the container; the original URI of the first artifact per list."""
    stored = {name: listed.artifacts[0].uri for name, listed in artifacts.items() if listed.artifacts}
    for listed in artifacts.values():
        for artifact in listed.artifacts:
            artifact.uri = local_path(artifact.uri)
    return stored


def _register_artifact_types() -> None:
    """Register the classes for the titles of our artifact types in the compiled pipeline."""
    from tfx.orchestration.kubeflow.v2 import compiler_utils
    from tfx.types.artifact import Artifact

    from components.steps import artifacts

    for kind in Artifact.__subclasses__():
        if kind.__module__ == artifacts.__name__:
            title = f"{NAMESPACE}.{kind.TYPE_NAME}"
            compiler_utils.TITLE_TO_CLASS_PATH[title] = f"{kind.__module__}.{kind.__qualname__}"


if __name__ == "__main__":
    sys.exit(main())
