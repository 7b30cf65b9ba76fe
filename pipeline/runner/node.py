"""Run one node of the compiled graph, for the local runner and for a scheduler through `bitsum node`."""

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
from pipeline import nodes
from pipeline.config import Config
from pipeline.graph import create_pipeline
from pipeline.runner import cache, owned_metadata
from pipeline.runner.owned_metadata import OwnedMetadata

# Every run has to compare the newest version with its candidate: a user may have removed it since.
NEVER_CACHED = (nodes.PUSHER,)


def compile_pipeline(config: Config, allow_older: bool = False) -> pipeline_pb2.Pipeline:
    """The intermediate representation of the pipeline, with the run id not yet set."""
    graph = compiler.Compiler().compile(create_pipeline(config, allow_older=allow_older))
    for node in graph.nodes:
        if node.pipeline_node.node_info.id in NEVER_CACHED:
            node.pipeline_node.execution_options.caching_options.enable_cache = False
    return graph


def set_run_id(graph: pipeline_pb2.Pipeline, run_id: str) -> None:
    """Set the run id, the graph's only runtime parameter."""
    runtime_parameter_utils.substitute_runtime_parameter(graph, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})


def node_ids(graph: pipeline_pb2.Pipeline) -> list[str]:
    """The ids of the nodes in topological order."""
    return [node.pipeline_node.node_info.id for node in graph.nodes]


def run_node(graph: pipeline_pb2.Pipeline, node_id: str, connection: mlmd.ConnectionConfig) -> bool:
    """Run one node of a graph whose run id is set; returns whether its outputs came from the cache.

    Raises:
        ConfigError: the graph has no such node.
        BitsumError: the node's inputs are missing, or another process runs it.
        Exception: the component's own error.
    """
    node = next((node.pipeline_node for node in graph.nodes if node.pipeline_node.node_info.id == node_id), None)
    if node is None:
        raise ConfigError(f"unknown node {node_id!r}: the pipeline has {', '.join(node_ids(graph))}")
    with OwnedMetadata(connection) as handle:
        adopted = owned_metadata.adopt_execution(handle.store, *_context(graph, node_id))
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
    # If TFX cannot find a node's inputs it raises nothing, and records the node as failed or not at all. Only a
    # resolver may find nothing.
    if state == mlmd.Execution.FAILED or (state is None and node_id in deployment.executor_specs):
        raise BitsumError(f"{node_id} did not run: this run lacks its inputs; run the nodes before it first")
    if adopted and node_id in deployment.executor_specs:
        with OwnedMetadata(connection) as handle:
            owned_metadata.update_execution(handle, node.node_info.type, done)
    return state == mlmd.Execution.CACHED


def _close_others(
    graph: pipeline_pb2.Pipeline, node_id: str, connection: mlmd.ConnectionConfig, before: list[mlmd.Execution]
) -> None:
    """Close other attempts at the node. The result is in the store already, so a failure here is only logged; the next
    start closes them."""
    try:
        with OwnedMetadata(connection) as handle:
            owned_metadata.close_others(handle.store, *_context(graph, node_id), before)
    except Exception:
        logging.exception("cannot close the unfinished attempts at %s", node_id)


def record_rejection(
    graph: pipeline_pb2.Pipeline, node_id: str, connection: mlmd.ConnectionConfig, reason: str
) -> None:
    """Record that the node failed because its gate refused, for `reason`."""
    with OwnedMetadata(connection) as handle:
        owned_metadata.record_rejection(handle.store, *_context(graph, node_id), reason)


def _context(graph: pipeline_pb2.Pipeline, node_id: str) -> tuple[str, str]:
    """The run id and the name of the node's context, which select its executions in the store."""
    return graph.runtime_spec.pipeline_run_id.field_value.string_value, f"{graph.pipeline_info.id}.{node_id}"


def _state(connection: mlmd.ConnectionConfig, execution_id: int) -> "mlmd.Execution.State":
    with metadata.Metadata(connection) as handle:
        [execution] = handle.store.get_executions_by_id([execution_id])
    return execution.last_known_state


@contextlib.contextmanager
def _no_arguments() -> Iterator[None]:
    """Hide this program's command line: TFX passes sys.argv to Beam, which would take our options for its own."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments
