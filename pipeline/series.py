"""The graph of a run in a series: its data, the spans before it, and the model that training starts from."""

import hashlib
import pathlib

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.types import Channel, standard_artifacts

from components.data import span_folders
from components.errors import BitsumError
from components.formats import request_logs
from components.settings import Data
from components.steps import last_blessed, resolvers
from components.steps.artifacts import DataBlessing
from components.steps.drift_validator import DriftValidator
from components.steps.example_gen import BitstringExampleGen
from components.steps.request_statistics import RequestStatistics
from components.steps.span_importer import SpanImporter
from components.steps.span_window import SpanWindow
from pipeline import nodes
from pipeline.config import Config


def generator(config: Config, code: str) -> BaseComponent:
    """The component that generates or imports the span of the run."""
    if not config.spans.source:
        return BitstringExampleGen(data=config.data.to_json(), code=code)
    if not config.data.span:
        config.spans.refuse("source", "needs the span to import: set data.span as well")
    return SpanImporter(
        data=config.data.to_json(),
        source=_absolute(config.spans.source),
        fingerprint=_fingerprint(config.spans.source, config.data),
        missing_newline=config.spans.missing_newline,
        quarantine_folder=quarantine(config),
        code=code,
    ).with_id(nodes.GENERATOR)


def quarantine(config: Config) -> str:
    """The folder for the report on the span if it is refused."""
    return str(config.root / "quarantine" / f"span-{config.data.span_name}") if config.data.span else ""


def drift(config: Config, statistics: BaseComponent, code: str) -> list[BaseNode]:
    """The nodes that compare the span with the previous one and with the requests served; the last is the
    DriftValidator."""
    previous = Resolver(
        strategy_class=resolvers.PreviousStatisticsStrategy,
        config={"span": config.data.span},
        statistics=Channel(type=standard_artifacts.ExampleStatistics, producer_component_id=nodes.STATISTICS),
        data_blessing=Channel(type=DataBlessing, producer_component_id=nodes.DATA_GATE),
    ).with_id(nodes.PREVIOUS_SPAN)
    requests = None
    if config.spans.request_log:
        log = _absolute(config.spans.request_log)
        requests = RequestStatistics(folder=log, fingerprint=_log_fingerprint(log), code=code)
    validator = DriftValidator(
        statistics=statistics.outputs["statistics"],
        previous=previous.outputs["statistics"],
        max_drift=config.spans.max_drift,
        max_skew=config.spans.max_skew,
        least_requests=config.spans.least_requests,
        code=code,
        requests=requests.outputs["statistics"] if requests else None,
    )
    return [previous, *([requests] if requests else []), validator]


def window(config: Config, examples: BaseComponent, gate: BaseComponent, code: str) -> list[BaseNode]:
    """The nodes that assemble the training data once the run's span is blessed; the last is the SpanWindow."""
    spans = Resolver(
        strategy_class=resolvers.WindowStrategy,
        config={"span": config.data.span, "window": config.spans.window},
        examples=Channel(type=standard_artifacts.Examples, producer_component_id=nodes.GENERATOR),
        data_blessing=Channel(type=DataBlessing, producer_component_id=nodes.DATA_GATE),
        current=examples.outputs["examples"],
    ).with_id(nodes.WINDOW_SPANS)
    spans.add_upstream_node(gate)
    return [spans, SpanWindow(examples=spans.outputs["examples"], shards=config.data.shards, code=code)]


def base_model(config: Config) -> Resolver:
    """The node that finds the model that training starts from and that the candidate is compared with."""
    return Resolver(
        strategy_class=last_blessed.EarlierBlessedModelStrategy,
        config={"span": config.data.span},
        model=Channel(type=standard_artifacts.Model, producer_component_id=nodes.TRAINER),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing, producer_component_id=nodes.PROVER),
    ).with_id(nodes.BASE_MODEL)


def _absolute(folder: str) -> str:
    return str(pathlib.Path(folder).expanduser().resolve())


def _fingerprint(source: str, data: Data) -> str:
    """The fingerprint of a user's own span; empty if it cannot be read, which only the importer reports."""
    try:
        return span_folders.fingerprint(span_folders.folder_of(source, data.span, data.span_name))
    except BitsumError:
        return ""


def _log_fingerprint(folder: str) -> str:
    """The fingerprint of a request log, whose files are complete when they appear and never change."""
    files = request_logs.files(pathlib.Path(folder))
    return hashlib.sha256(
        "".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in files).encode()
    ).hexdigest()
