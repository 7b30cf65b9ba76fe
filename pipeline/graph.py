"""The graph: every component, in the order in which the data flows."""

import dataclasses
import hashlib
import pathlib
from typing import NamedTuple

import tensorflow as tf
from tfx.components import Evaluator, ExampleValidator, StatisticsGen, Trainer
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration import pipeline
from tfx.proto import trainer_pb2
from tfx.types import Channel, standard_artifacts

import components
from components.data import sampling
from components.steps import evaluator
from components.steps.arithmetic_validator import ArithmeticValidator
from components.steps.data_gate import DataGate
from components.steps.infra_validator import InfraValidator
from components.steps.last_blessed import LastBlessedModelStrategy
from components.steps.prover import Prover
from components.steps.pusher import Pusher
from pipeline import nodes, series
from pipeline.code_hash import STEPS, STEPS_AND_SERVER, code_sha256
from pipeline.config import Config, to_toml

EVALUATED_SPLITS = ["eval", "long"]


class _Data(NamedTuple):
    """The nodes that generate and validate the data, in order, and those that later nodes read."""

    nodes: list[BaseNode]
    generator: BaseNode
    schema: BaseNode
    gate: BaseNode


class _Model(NamedTuple):
    """The nodes that train, evaluate and prove a model, in order, and those that later nodes read."""

    nodes: list[BaseNode]
    train: BaseNode
    prove: BaseNode


def create_pipeline(config: Config, cold_start: bool = False, allow_older: bool = False) -> pipeline.Pipeline:
    """The pipeline that `config` describes. Nothing runs, and no folder is created.

    The pipeline names no metadata store: its runner does, so that a compiled pipeline holds no password. With
    `cold_start` it has no resolvers and no baseline, for schedulers that do not know our resolver strategies. With
    `allow_older` the Pusher accepts a model older than the newest version; only its cache key depends on that.
    """
    code = code_sha256(STEPS)
    data = _data(config, code, cold_start)
    model = _model(config, code, cold_start, data)
    return pipeline.Pipeline(
        # Resolvers search the pipeline of this name: a model for another task must not become a baseline.
        pipeline_name=f"{config.pipeline.name}-{config.data.task}",
        pipeline_root=str(config.root / "artifacts"),
        components=[*data.nodes, *model.nodes, *_release(config, code, allow_older, data, model)],
        enable_cache=config.pipeline.cache,
        # Without an image of its own for Beam's workers, TFX would build a source distribution of itself.
        beam_pipeline_args=[*config.beam.args, "--sdk_container_image=unused"],
    )


def _in_series(config: Config, cold_start: bool) -> bool:
    return config.data.span > 0 and not cold_start


def _data(config: Config, code: str, cold_start: bool) -> _Data:
    """Generate the examples and validate them."""
    generator = series.generator(config, code)
    arithmetic_validator = ArithmeticValidator(examples=generator.outputs["examples"], task=config.data.task, code=code)
    # TFX's StatisticsGen fails with a Beam error on unreadable records: this gate refuses them first and names them.
    readability = DataGate(
        arithmetic_anomalies=arithmetic_validator.outputs["anomalies"],
        quarantine_folder=series.quarantine(config),
        code=code,
    ).with_id(nodes.READABILITY_GATE)
    statistics = StatisticsGen(examples=generator.outputs["examples"])
    statistics.add_upstream_node(readability)
    schema = ImportSchemaGen(schema_file=str(pathlib.Path(components.__file__).parent / "data" / "schema.pbtxt"))
    example_validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    drift = series.drift(config, statistics, code) if _in_series(config, cold_start) else []
    gate = DataGate(
        example_anomalies=example_validator.outputs["anomalies"],
        arithmetic_anomalies=arithmetic_validator.outputs["anomalies"],
        drift_anomalies=drift[-1].outputs["anomalies"] if drift else None,
        examples=generator.outputs["examples"],
        statistics=statistics.outputs["statistics"],
        quarantine_folder=series.quarantine(config),
        code=code,
    )
    checks = [arithmetic_validator, readability, statistics, schema, example_validator, *drift, gate]
    return _Data([generator, *checks], generator, schema, gate)


def _model(config: Config, code: str, cold_start: bool, data: _Data) -> _Model:
    """Train a model, evaluate it and prove it."""
    in_series = _in_series(config, cold_start)
    window = series.window(config, data.generator, data.gate, code) if in_series else []
    base = series.base_model(config) if in_series else None
    train = Trainer(
        run_fn=config.train.run_fn,
        examples=window[-1].outputs["window"] if window else data.generator.outputs["examples"],
        base_model=base.outputs["model"] if base and config.train.warm_start else None,
        schema=data.schema.outputs["schema"],
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        custom_config={
            "train": dataclasses.asdict(config.train),
            "proof": dataclasses.asdict(config.proof),
            "task": config.data.task,
            "splits": sampling.splits_key(config.data),
            "code": code,
            # A model of another version would be in the cache, but the proof could not compare its graph.
            "tensorflow": tf.__version__,
        },
    )
    train.add_upstream_node(data.gate)
    last_blessed = base or _last_blessed(train)
    baseline = None if cold_start else last_blessed.outputs["model"]
    evaluate = Evaluator(
        examples=data.generator.outputs["examples"],
        model=train.outputs["model"],
        baseline_model=baseline,
        schema=data.schema.outputs["schema"],
        eval_config=evaluator.eval_config(config.evaluate, evaluated_lengths(config)),
        example_splits=EVALUATED_SPLITS,
    )
    prove = Prover(
        model=train.outputs["model"],
        evaluation=evaluate.outputs["blessing"],
        baseline=baseline,
        proof_knobs=config.proof.to_json(),
        task=config.data.task,
        span=config.data.span,
        code=code,
    )
    resolvers = [] if cold_start else [last_blessed]
    return _Model([*window, train, *resolvers, evaluate, prove], train, prove)


def _release(config: Config, code: str, allow_older: bool, data: _Data, model: _Model) -> list[BaseNode]:
    """Validate the model on a server, and push it."""
    infra_validate = InfraValidator(
        model=model.train.outputs["model"],
        certificate=model.prove.outputs["certificate"],
        examples=data.generator.outputs["examples"],
        infra=config.infra.to_json(),
        model_name=config.serve.model_name,
        task=config.data.task,
        code=code_sha256(STEPS_AND_SERVER),
    )
    push = Pusher(
        model=model.train.outputs["model"],
        examples=data.generator.outputs["examples"],
        model_blessing=model.prove.outputs["blessing"],
        infra_blessing=infra_validate.outputs["blessing"],
        destination=str(config.push_to),
        task=config.data.task,
        config_hash=hashlib.sha256(to_toml(config).encode()).hexdigest(),
        code=code,
        span=config.data.span,
        span_date=config.data.span_date,
        allow_older=allow_older,
    )
    return [infra_validate, push]


def _last_blessed(train: Trainer) -> Resolver:
    """The node that finds the baseline of a run outside a series."""
    return Resolver(
        strategy_class=LastBlessedModelStrategy,
        model=Channel(type=standard_artifacts.Model, producer_component_id=nodes.TRAINER),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing, producer_component_id=nodes.PROVER),
        candidate=train.outputs["model"],
    ).with_id(nodes.LAST_BLESSED)


def evaluated_lengths(config: Config) -> list[int]:
    """Every length, in bits, at which a model must be exact."""
    return [*range(1, config.data.max_length + 1), *config.data.long_lengths]
