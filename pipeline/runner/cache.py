"""Checks the outputs that TFX's launcher would take from its cache, and finds them after the root was moved.

TFX reuses the outputs of an earlier execution with the same inputs and parameters if their folders exist. Its cache key
is a hash of these, paths included, so that a moved root would start with an empty cache.
"""

import copy
import pathlib
from collections.abc import Mapping
from typing import Any

from google.protobuf import message
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx import types
from tfx.orchestration import data_types_utils, metadata
from tfx.orchestration.portable import cache_utils, inputs_utils, outputs_utils
from tfx.orchestration.portable.input_resolution import exceptions
from tfx.orchestration.portable.mlmd import context_lib
from tfx.proto.orchestration import pipeline_pb2

from components.data import output_files
from pipeline.records import relocation

_Artifacts = Mapping[str, list[types.Artifact]]


def damage(
    handle: metadata.Metadata,
    graph: pipeline_pb2.Pipeline,
    node: pipeline_pb2.PipelineNode,
    executor_spec: message.Message,
) -> str | None:
    """The damage to the files that `node` would take from the cache; None if they are whole, or the cache has none.

    An execution from before the root was moved is associated with the current key of the same inputs.
    """
    parameters = data_types_utils.build_parsed_value_dict(inputs_utils.resolve_parameters_with_schema(node.parameters))
    context_lib.prepare_contexts(handle, node.contexts)
    try:
        inputs = inputs_utils.resolve_input_artifacts(pipeline_node=node, metadata_handle=handle)
    except exceptions.InputResolutionError:
        return None
    if isinstance(inputs, inputs_utils.Skip) or len(inputs) != 1:
        return None
    outputs = outputs_utils.OutputsResolver(node, graph.pipeline_info, graph.runtime_spec).generate_output_artifacts(0)

    def key(inputs: _Artifacts, parameters: Mapping[str, Any]) -> mlmd.Context:
        return cache_utils.get_cache_context(
            handle, node, graph.pipeline_info, executor_spec, inputs, outputs, parameters
        )

    now = key(inputs[0], parameters)
    root = pathlib.Path(graph.runtime_spec.pipeline_root.field_value.string_value).parent
    for before in relocation.former_paths(root):
        if handle.store.get_executions_by_context(now.id):
            break
        then = key(*_with_root_at(before, str(root), inputs[0], parameters))
        executions = handle.store.get_executions_by_context(then.id)
        associations = [mlmd.Association(execution_id=execution.id, context_id=now.id) for execution in executions]
        handle.store.put_attributions_and_associations([], associations)
    cached = cache_utils.get_cached_outputs(handle, now) or {}
    for artifact in (artifact for artifacts in cached.values() for artifact in artifacts):
        problem = output_files.problem(artifact.uri, artifact.get_string_custom_property(output_files.PROPERTY))
        if problem:
            return problem
    return None


def _with_root_at(
    before: str, root: str, inputs: _Artifacts, parameters: Mapping[str, Any]
) -> tuple[_Artifacts, dict[str, Any]]:
    """The node's inputs and parameters with `before` in place of `root`."""
    earlier = {name: copy.deepcopy(list(artifacts)) for name, artifacts in inputs.items()}
    for artifact in (artifact.mlmd_artifact for artifacts in earlier.values() for artifact in artifacts):
        relocation.relocate(artifact, root, before)
    return earlier, {name: relocation.moved(value, root, before) for name, value in parameters.items()}
