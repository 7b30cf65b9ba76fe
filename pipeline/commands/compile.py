"""`bitsum compile --target kubeflow`: the pipeline as a file for Kubeflow Pipelines, written offline.

The file is a PipelineSpec of schema 2.1.0 in YAML, followed with `--claim` by a PlatformSpec. Each node is a container
of `--image` with the command `pipeline.kubeflow.container`. TFX's compiler for Kubeflow supports only two of its own
resolvers, does not filter blessings by producer, and Kubeflow Pipelines runs no resolver at all: the compiled pipeline
is a cold start without a baseline.
"""

import argparse
import pathlib
import re
import sys
from typing import TYPE_CHECKING, Any

from components import outputs
from components.errors import ConfigError
from components.printable import say
from components.savedmodel import push_order
from pipeline import config as configuration
from pipeline import log_capture, nodes
from pipeline.config import Config

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline
    from tfx.types.artifact import Artifact

COMMAND = ("python", "-m", "pipeline.kubeflow.container")
NAMESPACE = "bitsum"
# The Pusher alone gets this parameter, which names the run of a version: it would defeat the cache of other nodes.
RUN_ID = "run_id"
_RUN_ID_OF_KUBEFLOW = "{{$.pipeline_job_uuid}}"
_COLD_START = "cold start: no run trains from an earlier model or is compared with one, as Kubeflow runs no resolvers"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bitsum compile`."""
    parser.add_argument("--target", choices=["kubeflow"], required=True, help="the scheduler to compile for")
    parser.add_argument("--image", required=True, help="container image that holds this project (docs/schedule.md)")
    parser.add_argument(
        "--output",
        metavar="FILE",
        default="kubeflow.yaml",
        help="file to write; - is standard output (default %(default)s)",
    )
    parser.add_argument(push_order.OPTION, action="store_true", help=push_order.HELP)
    parser.add_argument(
        "--claim", metavar="NAME", help="persistent volume claim to mount where the Pusher writes (pipeline.push_to)"
    )


def run(args: argparse.Namespace) -> int:
    """Compile, write the file, and print a summary; returns 0.

    Raises:
        BitsumError: the file cannot be written.
    """
    config = configuration.load(args.config, args.set)
    with outputs.opened(args.output) as file:
        with log_capture.discard_output():
            documents = compiled(config, args.image, args.claim, args.allow_older)
        file.write(as_yaml(documents))
    tasks = documents[0]["root"]["dag"]["tasks"]
    say(
        f"{args.output}: {len(tasks)} nodes, image {args.image}, command {' '.join(COMMAND)}",
        _COLD_START,
        f"versions are pushed to {config.push_to}: "
        + (f"volume claim {args.claim}" if args.claim else "mount a volume there (--claim)"),
        stream=sys.stderr if args.output == outputs.STDOUT else None,
    )
    return 0


def compiled(config: Config, image: str, claim: str | None = None, allow_older: bool = False) -> list[dict[str, Any]]:
    """The YAML documents: a PipelineSpec, and with a volume claim for the Pusher a PlatformSpec.

    Raises:
        ConfigError: Kubeflow does not accept the pipeline's name.
    """
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

    from pipeline.graph import create_pipeline

    pipeline = create_pipeline(config, cold_start=True, allow_older=allow_older)
    name = pipeline.pipeline_info.pipeline_name
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"pipeline.name = {config.pipeline.name!r}: Kubeflow allows at most 128 lower-case letters, digits and "
            "hyphens"
        )
    _make_portable(pipeline)
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image=image, default_commands=COMMAND, use_pipeline_spec_2_1=True
        )
    )
    spec = runner.run(pipeline, write_out=False)["pipelineSpec"]
    _disable_caching(spec)
    return [spec, _platform(claim, str(config.push_to))] if claim else [spec]


def as_yaml(documents: list[dict[str, Any]]) -> bytes:
    """The content of the file for Kubeflow Pipelines."""
    import yaml

    heading = f"# PIPELINE DEFINITION\n# Name: {documents[0]['pipelineInfo']['name']}\n# Description: {_COLD_START}\n"
    return (heading + yaml.safe_dump_all(documents)).encode()


def _make_portable(pipeline: "Pipeline") -> None:
    """Make the pipeline independent of this machine: our artifact types by title, project files by relative path."""
    import components
    from components.steps import artifacts

    project = pathlib.Path(components.__file__).parents[1]
    for node in pipeline.components:
        for channel in (*node.inputs.values(), *node.outputs.values()):
            if channel.type.__module__ == artifacts.__name__:
                channel.type = _titled(channel.type)
        for name, value in node.exec_properties.items():
            if isinstance(value, str) and pathlib.Path(value).is_relative_to(project / components.__name__):
                node.exec_properties[name] = str(pathlib.Path(value).relative_to(project))


def _titled(kind: "type[Artifact]") -> "type[Artifact]":
    """An artifact type as TFX's compiler requires custom ones: with a namespace, and without properties."""
    from tfx.types.artifact import Artifact

    return type(kind.__name__, (Artifact,), {"TYPE_NAME": f"{NAMESPACE}.{kind.TYPE_NAME}"})


def _disable_caching(spec: dict[str, Any]) -> None:
    """Nodes that depend on outside state always run; the Pusher gets the run id."""
    from pipeline.runner.node import NEVER_CACHED

    for node in NEVER_CACHED:
        spec["root"]["dag"]["tasks"][node].pop("cachingOptions", None)
    spec["components"][nodes.PUSHER]["inputDefinitions"]["parameters"][RUN_ID] = {"parameterType": "STRING"}
    spec["root"]["dag"]["tasks"][nodes.PUSHER]["inputs"]["parameters"][RUN_ID] = {
        "runtimeValue": {"constant": _RUN_ID_OF_KUBEFLOW}
    }


def _platform(claim: str, mount_path: str) -> dict[str, Any]:
    mount = {"pvcMount": [{"constant": claim, "mountPath": mount_path}]}
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {f"{nodes.PUSHER}_executor": mount}}}}}
