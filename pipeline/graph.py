"""The graph: every component, top to bottom, as the data flows."""

import dataclasses
import hashlib
import pathlib

from tfx.components import Evaluator, ExampleValidator, StatisticsGen, Trainer
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
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
from pipeline import series
from pipeline.code_hash import STEPS, STEPS_AND_SERVER, code_sha256
from pipeline.config import Config, to_toml

EVALUATED_SPLITS = ["eval", "long"]


def create_pipeline(config: Config, cold_start: bool = False, allow_older: bool = False) -> pipeline.Pipeline:
    """The pipeline that `config` describes; nothing is run and no folder made.

    It names no metadata store: whoever runs it says where that is, so that no password gets into a compiled pipeline.
    With `cold_start` it has no resolver and compares with no earlier model, for a scheduler that knows none of our
    strategies. With `allow_older` the push takes a model that is older than the newest version; no other node is told,
    or its cache would be cold.
    """
    code = code_sha256(STEPS)
    schema_file = pathlib.Path(components.__file__).parent / "data" / "schema.pbtxt"

    in_series = config.data.span > 0 and not cold_start

    generator = series.generator(config, code)
    arithmetic_validator = ArithmeticValidator(examples=generator.outputs["examples"], task=config.data.task, code=code)
    # TFX's StatisticsGen ends in an error of Beam's on records that cannot be read: those are refused before, with
    # their names.
    readable = DataGate(
        arithmetic_anomalies=arithmetic_validator.outputs["anomalies"],
        quarantine_folder=series.quarantine(config),
        code=code,
    ).with_id("ReadableGate")
    statistics = StatisticsGen(examples=generator.outputs["examples"])
    statistics.add_upstream_node(readable)
    schema = ImportSchemaGen(schema_file=str(schema_file))
    example_validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    drift = series.drift(config, statistics, code) if in_series else []
    gate = DataGate(
        example_anomalies=example_validator.outputs["anomalies"],
        arithmetic_anomalies=arithmetic_validator.outputs["anomalies"],
        drift_anomalies=drift[-1].outputs["anomalies"] if drift else None,
        examples=generator.outputs["examples"],
        statistics=statistics.outputs["statistics"],
        quarantine_folder=series.quarantine(config),
        code=code,
    )
    window = series.window(config, generator, gate, code) if in_series else []
    base = series.base_model(config, Trainer.__name__, Prover.__name__) if in_series else None
    train = Trainer(
        run_fn=config.train.run_fn,
        examples=window[-1].outputs["window"] if window else generator.outputs["examples"],
        base_model=base.outputs["model"] if base and config.train.warm_start else None,
        schema=schema.outputs["schema"],
        train_args=trainer_pb2.TrainArgs(splits=["train"], num_steps=config.train.steps),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        custom_config={
            "train": dataclasses.asdict(config.train),
            "proof": dataclasses.asdict(config.proof),
            "task": config.data.task,
            "splits": sampling.splits_key(config.data),
            "code": code,
        },
    )
    train.add_upstream_node(gate)
    last_blessed = base or _last_blessed(train)
    baseline = None if cold_start else last_blessed.outputs["model"]
    evaluate = Evaluator(
        examples=generator.outputs["examples"],
        model=train.outputs["model"],
        baseline_model=baseline,
        schema=schema.outputs["schema"],
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
    infra_validate = InfraValidator(
        model=train.outputs["model"],
        certificate=prove.outputs["certificate"],
        examples=generator.outputs["examples"],
        infra=config.infra.to_json(),
        model_name=config.serve.model_name,
        task=config.data.task,
        code=code_sha256(STEPS_AND_SERVER),
    )
    push = Pusher(
        model=train.outputs["model"],
        examples=generator.outputs["examples"],
        model_blessing=prove.outputs["blessing"],
        infra_blessing=infra_validate.outputs["blessing"],
        destination=str(config.push_to),
        task=config.data.task,
        config_hash=hashlib.sha256(to_toml(config).encode()).hexdigest(),
        code=code,
        span=config.data.span,
        allow_older=allow_older,
    )
    resolvers = [] if cold_start else [last_blessed]
    return pipeline.Pipeline(
        # The last blessed model is looked for in the pipeline of this name: one that computes something else is no
        # baseline.
        pipeline_name=f"{config.pipeline.name}-{config.data.task}",
        pipeline_root=str(config.root / "artifacts"),
        components=[
            generator,
            arithmetic_validator,
            readable,
            statistics,
            schema,
            example_validator,
            *drift,
            gate,
            *window,
            train,
            *resolvers,
            evaluate,
            prove,
            infra_validate,
            push,
        ],
        enable_cache=config.pipeline.cache,
        # TFX builds a source distribution of itself for Beam's workers unless they have an image of their own.
        beam_pipeline_args=[*config.beam.args, "--sdk_container_image=unused"],
    )


def _last_blessed(train: Trainer) -> Resolver:
    """The node that finds what a run on its own is compared with."""
    return Resolver(
        strategy_class=LastBlessedModelStrategy,
        model=Channel(type=standard_artifacts.Model, producer_component_id=train.id),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing, producer_component_id=Prover.__name__),
        candidate=train.outputs["model"],
    ).with_id("LastBlessedModel")


def evaluated_lengths(config: Config) -> list[int]:
    """Every length at which a model has to be right."""
    return [*range(1, config.data.max_length + 1), *config.data.long_lengths]
