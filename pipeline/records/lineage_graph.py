"""The executions and artifacts of a metadata store, and which artifacts each one was made from."""

import dataclasses
from collections.abc import Collection, Iterable

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.errors import BitsumError
from pipeline.records.metadata_store import NODE_CONTEXT, RUN_CONTEXT

# The input of a trainer that is an earlier model: the source of a warm start.
BASE_MODEL = "base_model"

_INPUTS = (mlmd.Event.INPUT, mlmd.Event.DECLARED_INPUT)
_OUTPUTS = (mlmd.Event.OUTPUT, mlmd.Event.DECLARED_OUTPUT)


@dataclasses.dataclass(frozen=True)
class Link:
    """An execution's input or output artifact, under the name `key`."""

    execution: int
    artifact: int
    key: str


@dataclasses.dataclass(frozen=True)
class Output:
    """An artifact that a node of a run wrote, or took from the cache, under the name `key`."""

    node: str
    key: str
    artifact: mlmd.Artifact

    def integer(self, name: str) -> int:
        """A custom property of the artifact; 0 if it is not set."""
        return self.artifact.custom_properties[name].int_value

    def text(self, name: str) -> str:
        """A custom property of the artifact; empty if it is not set."""
        return self.artifact.custom_properties[name].string_value


class LineageGraph:
    """The whole content of a metadata store, read once; ids are the store's own."""

    def __init__(self, store: metadata_store.MetadataStore):
        self.executions = {execution.id: execution for execution in store.get_executions()}
        self.artifacts = {artifact.id: artifact for artifact in store.get_artifacts()}
        self._kinds = {kind.id: kind.name for kind in store.get_artifact_types()}
        nodes = {execution: name.rpartition(".") for execution, name in _by_execution(store, NODE_CONTEXT).items()}
        self.node_of = {execution: node for execution, (_, _, node) in nodes.items()}
        self.pipeline_of = {execution: pipeline for execution, (pipeline, _, _) in nodes.items()}
        self.run_of = _by_execution(store, RUN_CONTEXT)
        events = store.get_events_by_execution_ids(list(self.executions)) if self.executions else []
        self._inputs = _grouped(event for event in events if event.type in _INPUTS)
        self._outputs = _grouped(event for event in events if event.type in _OUTPUTS)
        self._producers: dict[int, int] = {}
        # A cached execution has output events too; the producer is the first execution.
        for execution in sorted(self._outputs, reverse=True):
            self._producers.update({link.artifact: execution for link in self._outputs[execution]})

    def kind(self, artifact: int) -> str:
        """The name of the artifact's type."""
        return self._kinds[self.artifacts[artifact].type_id]

    def of_kind(self, kind: str) -> list[mlmd.Artifact]:
        """The artifacts of a type, oldest first."""
        return [self.artifacts[id] for id in sorted(self.artifacts) if self.kind(id) == kind]

    def inputs(self, execution: int, key: str = "") -> list[Link]:
        """The inputs of an execution, all or those named `key`."""
        return [link for link in self._inputs.get(execution, []) if key in ("", link.key)]

    def outputs(self, execution: int) -> list[Link]:
        """The outputs of an execution."""
        return self._outputs.get(execution, [])

    def producer(self, artifact: int) -> int:
        """The execution that made an artifact.

        Raises:
            BitsumError: the store has no record of it.
        """
        if artifact not in self._producers:
            raise BitsumError(f"the metadata store does not record which execution made artifact {artifact}")
        return self._producers[artifact]

    def producer_node(self, artifact: int) -> str:
        """The node that made an artifact; empty if it is not recorded."""
        return self.node_of.get(self._producers.get(artifact, 0), "")

    def producer_run(self, artifact: int) -> str:
        """The run that made an artifact; empty if it is not recorded."""
        return self.run_of.get(self._producers.get(artifact, 0), "")

    def made_from(self, artifact: int, key: str = "") -> list[Link]:
        """The inputs of the execution that made an artifact, all or those named `key`."""
        return self.inputs(self._producers.get(artifact, 0), key)

    def executions_of(self, run_id: str) -> list[int]:
        """The executions of a run, oldest first."""
        return sorted(execution for execution, run in self.run_of.items() if run == run_id)

    def outputs_of(self, run_id: str) -> list[Output]:
        """The outputs of a run's nodes, cached ones included, in the order of their executions."""
        links = [link for execution in self.executions_of(run_id) for link in self.outputs(execution)]
        return [Output(self.node_of[link.execution], link.key, self.artifacts[link.artifact]) for link in links]

    def ancestors(self, artifacts: Iterable[int], without: Collection[str] = ()) -> set[int]:
        """`artifacts` and everything they were made from; inputs whose key is in `without` are not followed."""
        visited: set[int] = set()
        pending = list(artifacts)
        while pending:
            artifact = pending.pop()
            if artifact not in visited and artifact in self.artifacts:
                visited.add(artifact)
                pending += [link.artifact for link in self.made_from(artifact) if link.key not in without]
        return visited


def _by_execution(store: metadata_store.MetadataStore, context_type: str) -> dict[int, str]:
    contexts = store.get_contexts_by_type(context_type)
    return {
        execution.id: context.name for context in contexts for execution in store.get_executions_by_context(context.id)
    }


def _grouped(events: Iterable[mlmd.Event]) -> dict[int, list[Link]]:
    links: dict[int, list[Link]] = {}
    for event in events:
        key = next((step.key for step in event.path.steps if step.key), "")
        links.setdefault(event.execution_id, []).append(Link(event.execution_id, event.artifact_id, key))
    return links
