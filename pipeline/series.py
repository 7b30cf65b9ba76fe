"""What the graph has besides for a run in a series: its data, the spans before it, and the model that it begins
with."""

import hashlib
import pathlib

from tfx.components import StatisticsGen
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.types import Channel, standard_artifacts

from components.data import span_folders
from components.errors import BitsumError
from components.formats import request_logs
from components.steps import last_blessed, resolvers
from components.steps.artifacts import DataBlessing
from components.steps.drift_validator import DriftValidator
from components.steps.example_gen import BitstringExampleGen
from components.steps.request_statistics import RequestStatistics
from components.steps.span_importer import SpanImporter
from components.steps.span_window import SpanWindow
from pipeline.config import Config

# Where the runs of a pipeline find each other's outputs; imported data stands in the place of generated data.
GENERATOR = BitstringExampleGen.__name__
GATE = "DataGate"


def generator(config: Config, code: str) -> BaseComponent:
    """The component that makes or imports the span of the run."""
    if not config.spans.source:
        return BitstringExampleGen(data=config.data.to_json(), code=code)
    if not config.data.span:
        config.spans.refuse("source", "the data of which span? Set data.span, too")
    return SpanImporter(
        data=config.data.to_json(),
        source=_absolute(config.spans.source),
        fingerprint=_fingerprint(config.spans.source, config.data.span),
        quarantine_folder=quarantine(config),
        code=code,
    ).with_id(GENERATOR)


def quarantine(config: Config) -> str:
    """Where the reports of refused spans go."""
    return str(config.root / "quarantine") if config.data.span else ""


def drift(config: Config, statistics: BaseComponent, code: str) -> list[BaseNode]:
    """The nodes that compare the span with the one before it and with what was asked; the last is the
    DriftValidator."""
    previous = Resolver(
        strategy_class=resolvers.PreviousStatisticsStrategy,
        config={"span": config.data.span},
        statistics=Channel(type=standard_artifacts.ExampleStatistics, producer_component_id=StatisticsGen.__name__),
        data_blessing=Channel(type=DataBlessing, producer_component_id=GATE),
    ).with_id("PreviousSpan")
    log = config.spans.request_log
    requests = (
        [RequestStatistics(folder=_absolute(log), fingerprint=_log_fingerprint(_absolute(log)), code=code)]
        if log
        else []
    )
    validator = DriftValidator(
        statistics=statistics.outputs["statistics"],
        previous=previous.outputs["statistics"],
        max_drift=config.spans.max_drift,
        max_skew=config.spans.max_skew,
        least_requests=config.spans.least_requests,
        code=code,
        **{"requests": component.outputs["statistics"] for component in requests},
    )
    return [previous, *requests, validator]


def window(config: Config, examples: BaseComponent, gate: BaseComponent, code: str) -> list[BaseNode]:
    """The nodes that put together what is trained on, once the span of the run is blessed; the last is the
    SpanWindow."""
    spans = Resolver(
        strategy_class=resolvers.WindowStrategy,
        config={"span": config.data.span, "window": config.spans.window},
        examples=Channel(type=standard_artifacts.Examples, producer_component_id=GENERATOR),
        data_blessing=Channel(type=DataBlessing, producer_component_id=GATE),
        current=examples.outputs["examples"],
    ).with_id("WindowSpans")
    spans.add_upstream_node(gate)
    return [spans, SpanWindow(examples=spans.outputs["examples"], shards=config.data.shards, code=code)]


def base_model(config: Config, trainer: str, blesser: str) -> Resolver:
    """The node that finds the model to begin with and to compare with; names of the nodes that train and that bless."""
    return Resolver(
        strategy_class=last_blessed.EarlierBlessedModelStrategy,
        config={"span": config.data.span},
        model=Channel(type=standard_artifacts.Model, producer_component_id=trainer),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing, producer_component_id=blesser),
    ).with_id("BaseModel")


def _absolute(folder: str) -> str:
    return str(pathlib.Path(folder).expanduser().resolve())


def _fingerprint(source: str, span: int) -> str:
    """Of a user's own span; "" where it cannot be read, which the importer says when it is its turn, and no other
    node."""
    try:
        return span_folders.fingerprint(span_folders.folder_of(source, span))
    except BitsumError:
        return ""


def _log_fingerprint(folder: str) -> str:
    """Of the files of a request log, which are whole when they appear and never change."""
    files = sorted(pathlib.Path(folder).rglob(request_logs.PATTERN))
    return hashlib.sha256(
        "".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in files).encode()
    ).hexdigest()
