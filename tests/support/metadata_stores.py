"""Metadata stores made by hand: runs of the pipeline's shape in a real ML Metadata store, artifacts with files, and no
step executed."""

import json
import pathlib
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.formats import tfrecords
from pipeline import config as configuration
from pipeline.records import evaluation, metadata_store

KINDS = {
    "examples": "Examples",
    "statistics": "ExampleStatistics",
    "schema": "Schema",
    "model": "Model",
    "model_run": "ModelRun",
    "evaluation": "ModelEvaluation",
    "certificate": "Certificate",
    "pushed_model": "PushedModel",
    "drift": "ExampleAnomalies",
}
BLESSINGS = {"DataGate": "DataBlessing", "InfraValidator": "InfraBlessing"}
ANOMALIES = {"ExampleValidator": "ExampleAnomalies", "ArithmeticValidator": "ArithmeticAnomalies"}
COMPLETE, FAILED, RUNNING, CACHED = (
    mlmd.Execution.COMPLETE,
    mlmd.Execution.FAILED,
    mlmd.Execution.RUNNING,
    mlmd.Execution.CACHED,
)


class Store:
    """The store of the pipeline in the folder `root`, which is made; more knobs in `settings`."""

    def __init__(self, root: pathlib.Path, settings: tuple[str, ...] = ()):
        root.mkdir()
        (root / ".bitsum").touch()
        self.root = root
        knobs = (f"pipeline.root={root}", *settings)
        self.settings = tuple(word for knob in knobs for word in ("--set", knob))
        self.config = configuration.load(None, knobs)
        self.client = metadata_store.open_store(self.config)
        # A write to the store takes a while: what is known need not be asked for.
        self._executions = 0
        self._known: dict[int, mlmd.Artifact] = {}
        self._contexts: dict[str, mlmd.Context] = {}
        self._types: dict[str, int] = {}

    def execution(
        self,
        run: str,
        node: str,
        inputs: dict[str, int],
        outputs: dict[str, dict[str, Any]],
        state: int = COMPLETE,
        **properties: Any,
    ) -> dict[str, int]:
        """One execution; outputs are {key: custom properties}. The ids of what it put out by key, and its own as
        "execution"."""
        # The store counts from 1, and an artifact's folder is named after the execution that made it.
        self._executions += 1
        execution = mlmd.Execution(type_id=self._type("execution", node), last_known_state=state)
        _fill(execution.custom_properties, properties)
        links = [(self._known[id], _event(mlmd.Event.INPUT, key)) for key, id in inputs.items()]
        links += [
            (self._artifact(node, key, custom), _event(mlmd.Event.OUTPUT, key)) for key, custom in outputs.items()
        ]
        contexts = [self._context("pipeline_run", run), self._context("node", f"bitsum-addition.{node}")]
        id, artifacts, _ = self.client.put_execution(execution, links, contexts)
        assert id == self._executions
        made = dict(zip(outputs, artifacts[len(inputs) :], strict=True))
        self._known.update(
            {artifact.id: artifact for artifact in self.client.get_artifacts_by_id(list(made.values()))} if made else {}
        )
        return {"execution": id, **made}

    def cached(self, run: str, node: str, inputs: dict[str, int], outputs: dict[str, int]) -> int:
        """An execution that took its outputs from the cache."""
        self._executions += 1
        links = [(self._known[id], _event(mlmd.Event.INPUT, key)) for key, id in inputs.items()]
        links += [(self._known[id], _event(mlmd.Event.OUTPUT, key)) for key, id in outputs.items()]
        contexts = [self._context("pipeline_run", run), self._context("node", f"bitsum-addition.{node}")]
        return self.client.put_execution(
            mlmd.Execution(type_id=self._type("execution", node), last_known_state=CACHED), links, contexts
        )[0]

    def folder(self, artifact: int) -> pathlib.Path:
        return pathlib.Path(self.client.get_artifacts_by_id([artifact])[0].uri)

    def state(self, execution: int) -> int:
        return self.client.get_executions_by_id([execution])[0].last_known_state

    def run(
        self,
        run: str,
        *,
        span: int = 0,
        version: int = 0,
        exact: float = 1.0,
        margin: float | None = 4.0,
        base: int = 0,
    ) -> dict[str, int]:
        """A whole run: its model is pushed as `version`, or refused by the evaluation (exact below 1) or the proof
        (margin None).

        The ids of the artifacts by the name of their key, of the executions as "push" and "train".
        """
        data = self.execution(
            run, "BitstringExampleGen", {}, {"examples": {"span": span}}, data=json.dumps({"span": span, "seed": 1})
        )
        examples = {"examples": data["examples"]}
        schema = self.execution(run, "ImportSchemaGen", {}, {"schema": {}})
        statistics = self.execution(run, "StatisticsGen", examples, {"statistics": {}})
        found = self.execution(run, "ExampleValidator", {"statistics": statistics["statistics"]}, {"anomalies": {}})
        wrong = self.execution(run, "ArithmeticValidator", examples, {"anomalies": {}})
        checked = examples | {"arithmetic_anomalies": wrong["anomalies"], "statistics": statistics["statistics"]}
        checked |= {"example_anomalies": found["anomalies"]}
        self.execution(run, "DataGate", checked, {"blessing": {"span": span}})
        start = {"base_model": base} if base else {}
        train = self.execution(
            run, "Trainer", {**examples, "schema": schema["schema"], **start}, {"model": {}, "model_run": {}}
        )
        model = {"model": train["model"]}
        evaluated = self.execution(
            run, "Evaluator", model | examples, {"evaluation": {}, "blessing": {"blessed": int(exact == 1)}}
        )
        write_evaluation(self.folder(evaluated["evaluation"]), {1: 1.0, 8: exact})
        good = int(exact == 1 and margin is not None)
        said = {
            "blessed": good,
            "proven": int(margin is not None),
            "required": 1,
            "reason": "" if good else "wrong: 3 + 3 = 4",
        }
        said |= {"margin": f"{margin:.6g}"} if margin is not None else {}
        prove = self.execution(
            run, "Prover", model | {"evaluation": evaluated["blessing"]}, {"blessing": said, "certificate": {}}
        )
        infra = self.execution(run, "InfraValidator", model | examples, {"blessing": {"blessed": 1, "reason": ""}})
        path = str(self.config.push_to / str(version))
        pushed = (
            {"pushed": 1, "is_new": 1, "pushed_version": str(version), "pushed_destination": path}
            if version
            else {"pushed": 0}
        )
        read = model | examples | {"model_blessing": prove["blessing"], "infra_blessing": infra["blessing"]}
        push = self.execution(
            run, "Pusher", read, {"pushed_model": pushed}, task="addition", config_hash="c0ffee", code="c0de"
        )
        made = {"anomalies": found["anomalies"], "wrong": wrong["anomalies"], "evaluation": evaluated["evaluation"]}
        ids = {**data, **schema, **statistics, **made, **train, "push": push["execution"], "train": train["execution"]}
        return ids | {"certificate": prove["certificate"], "pushed_model": push["pushed_model"]}

    def _context(self, kind: str, name: str) -> mlmd.Context:
        if name not in self._contexts:
            [id] = self.client.put_contexts([mlmd.Context(type_id=self._type("context", kind), name=name)])
            [self._contexts[name]] = self.client.get_contexts_by_id([id])
        return self._contexts[name]

    def _artifact(self, node: str, key: str, custom: dict[str, Any]) -> mlmd.Artifact:
        name = KINDS.get(key) or (ANOMALIES if key == "anomalies" else BLESSINGS).get(node, "ModelBlessing")
        folder = self.root / "artifacts" / node / key / str(self._executions)
        folder.mkdir(parents=True)
        (folder / "content").write_text("x" * 100)
        artifact = mlmd.Artifact(type_id=self._type("artifact", name), uri=str(folder), state=mlmd.Artifact.LIVE)
        _fill(artifact.properties if name == "Examples" else artifact.custom_properties, custom)
        return artifact

    def _type(self, what: str, name: str) -> int:
        if name not in self._types:
            if what == "execution":
                self._types[name] = self.client.put_execution_type(mlmd.ExecutionType(name=f"somewhere.{name}"))
            elif what == "context":
                self._types[name] = self.client.put_context_type(mlmd.ContextType(name=name))
            else:
                properties = {"span": mlmd.INT} if name == "Examples" else {}
                self._types[name] = self.client.put_artifact_type(mlmd.ArtifactType(name=name, properties=properties))
        return self._types[name]


def write_evaluation(folder: pathlib.Path, exact: dict[int, float]) -> None:
    """Metrics and validation of a model as TensorFlow Model Analysis writes them; {length: exact match}."""
    protos = evaluation._protos()
    result = protos.validation.ValidationResult(validation_ok=all(value == 1 for value in exact.values()))
    records = []
    for length, value in exact.items():
        metrics = protos.metrics.MetricsForSlice()
        for message in (
            metrics,
            result.metric_validations_per_slice.add() if value < 1 else protos.metrics.MetricsForSlice(),
        ):
            message.slice_key.single_slice_keys.add(column="length", int64_value=length)
        entry = metrics.metric_keys_and_values.add()
        entry.key.name, entry.value.double_value.value = "exact_match", value
        records.append(metrics.SerializeToString())
        if value < 1:
            failure = result.metric_validations_per_slice[-1].failures.add()
            failure.metric_key.name, failure.metric_value.double_value.value = "exact_match", value
    (folder / "metrics-00000-of-00001.tfrecord").write_bytes(b"".join(map(tfrecords.framed, records)))
    (folder / "validations.tfrecord").write_bytes(tfrecords.framed(result.SerializeToString()))


def _fill(properties: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(properties[name], "int_value" if isinstance(value, int) else "string_value", value)


def _event(kind: int, key: str) -> mlmd.Event:
    return mlmd.Event(
        type=kind, path=mlmd.Event.Path(steps=[mlmd.Event.Path.Step(key=key), mlmd.Event.Path.Step(index=0)])
    )
