"""Run one node of the compiled graph: what the local runner does for each, and what any scheduler can do with a
command."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from components.errors import BitsumError, ConfigError
from components.progress import warn
from pipeline.config import Config
from pipeline.graph import create_pipeline
from pipeline.runner import cache, owned_metadata
from pipeline.runner.owned_metadata import OwnedMetadata

# Whether the newest version is the candidate has to be looked at in each run: somebody may have removed it since.
NEVER_CACHED = ("Pusher",)


def compile_pipeline(config: Config, allow_older: bool = False) -> pipeline_pb2.Pipeline:
    """The intermediate representation of the pipeline, in which the run's id is still open."""
    graph = compiler.Compiler().compile(create_pipeline(config, allow_older=allow_older))
    for node in graph.nodes:
        if node.pipeline_node.node_info.id in NEVER_CACHED:
            node.pipeline_node.execution_options.caching_options.enable_cache = False
    return graph


def set_run_id(graph: pipeline_pb2.Pipeline, run_id: str) -> None:
    """Fill in the run's id, the one runtime parameter of the graph."""
    runtime_parameter_utils.substitute_runtime_parameter(graph, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})


def node_ids(graph: pipeline_pb2.Pipeline) -> list[str]:
    """The ids of the nodes in topological order."""
    return [node.pipeline_node.node_info.id for node in graph.nodes]


def upstream(graph: pipeline_pb2.Pipeline) -> dict[str, list[str]]:
    """The graph's edges: {node id: ids of the nodes that have to be done before it}, in topological order."""
    return {node.pipeline_node.node_info.id: sorted(node.pipeline_node.upstream_nodes) for node in graph.nodes}


def run_node(graph: pipeline_pb2.Pipeline, node_id: str, connection: mlmd.ConnectionConfig) -> bool:
    """Run one node of a graph whose run id is set; says whether its outputs came from the cache.

    Raises:
        ConfigError: the graph has no such node.
        Exception: whatever the component raised; BitsumError, its inputs are not there, or another process works on it.
    """
    node = next((node.pipeline_node for node in graph.nodes if node.pipeline_node.node_info.id == node_id), None)
    if node is None:
        raise ConfigError(f"there is no node {node_id!r} in the pipeline: it has {', '.join(node_ids(graph))}")
    with OwnedMetadata(connection) as handle:
        adopted = owned_metadata.adopt_execution(handle.store, *_place(graph, node_id))
    deployment = runner_utils.extract_local_deployment_config(graph)
    executor_spec = runner_utils.extract_executor_spec(deployment, node_id)
    if executor_spec and node.execution_options.caching_options.enable_cache:
        with OwnedMetadata(connection) as handle:
            damage = cache.damage(handle, graph, node, executor_spec)
        if damage:
            warn(f"not taken from the cache: {damage}")
            node.execution_options.caching_options.enable_cache = False
    try:
        with _no_arguments():
            done = launcher.Launcher(
                pipeline_node=node,
                mlmd_connection=OwnedMetadata(connection),
                pipeline_info=graph.pipeline_info,
                pipeline_runtime_spec=graph.runtime_spec,
                executor_spec=executor_spec,
                custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
            ).launch()
    finally:
        _close_others(graph, node_id, connection, adopted)
    state = _state(connection, done.execution_id) if done and done.execution_id else None
    # TFX records a node whose inputs it cannot find as failed, or not at all, and raises nothing. Only a resolver may
    # find nothing.
    if state == mlmd.Execution.FAILED or (state is None and node_id in deployment.executor_specs):
        raise BitsumError(
            f"{node_id} did not run: what it takes is not there in this run; the nodes before it have to be done first"
        )
    if adopted and node_id in deployment.executor_specs:
        with OwnedMetadata(connection) as handle:
            owned_metadata.update_execution(handle, node.node_info.type, done)
    return state == mlmd.Execution.CACHED


def _close_others(
    graph: pipeline_pb2.Pipeline, node_id: str, connection: mlmd.ConnectionConfig, before: list[mlmd.Execution]
) -> None:
    """What came of the node stands in the store already: that this fails is no failure of the node's, and the next
    start does it then."""
    try:
        with OwnedMetadata(connection) as handle:
            owned_metadata.close_others(handle.store, *_place(graph, node_id), before)
    except Exception:
        logging.exception("the attempts at %s that came to nothing could not be closed", node_id)


def record_rejection(
    graph: pipeline_pb2.Pipeline, node_id: str, connection: mlmd.ConnectionConfig, reason: str
) -> None:
    """Let the store know that the node did not just fail: its gate refused, for `reason`."""
    with OwnedMetadata(connection) as handle:
        owned_metadata.record_rejection(handle.store, *_place(graph, node_id), reason)


def _place(graph: pipeline_pb2.Pipeline, node_id: str) -> tuple[str, str]:
    """The run and the node's context, by which the store finds what was begun there."""
    return graph.runtime_spec.pipeline_run_id.field_value.string_value, f"{graph.pipeline_info.id}.{node_id}"


def _state(connection: mlmd.ConnectionConfig, execution_id: int) -> "mlmd.Execution.State":
    with metadata.Metadata(connection) as handle:
        [execution] = handle.store.get_executions_by_id([execution_id])
    return execution.last_known_state


@contextlib.contextmanager
def _no_arguments() -> Iterator[None]:
    """Hide this program's command line: TFX hands sys.argv to Beam, which would read our options as its own."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments
