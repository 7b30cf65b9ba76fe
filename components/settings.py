"""Every knob of every step: its default, its unit, its limits and its purpose.

Each section is a frozen dataclass; `pipeline.config` puts the sections into one tree and reads it from files and the
command line. A section is valid once constructed: an impossible value raises ConfigError.
"""

import dataclasses
import datetime
import json
import math
import re
from typing import Any, TypeVar

from components import regular_files
from components.errors import ConfigError
from components.suggestions import did_you_mean
from components.task.transducer import ADDITION, TASKS

# A span given as a date is the number of days since this one, as in TFX.
EPOCH = datetime.date(1970, 1, 1)

# Of spans.missing_newline.
WARN, REFUSE = "warn", "refuse"

_Section = TypeVar("_Section", bound="Section")
_Limit = float | None

# Renamed knobs: a configuration with an old name is refused, and the error gives the new name.
RENAMED = {
    "data.eval_share": "eval_fraction",
    "train.least_steps": "min_steps",
    "proof.share_most": "max_share",
    "proof.margin_share": "min_margin_ratio",
    "proof.margin_enough": "margin_cap",
}

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|file:")


def knob(
    default: Any, why: str, *, unit: str = "", at_least: _Limit = None, at_most: _Limit = None, choices: tuple = ()
) -> Any:
    """A dataclass field with its documentation and its limits in the metadata."""
    return dataclasses.field(
        default=default,
        metadata={"why": why, "unit": unit, "at_least": at_least, "at_most": at_most, "choices": choices},
    )


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the configuration; the constructor checks the types and limits of its knobs.

    Raises:
        ConfigError: naming the knob, the value and the limit.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, self._checked(field, getattr(self, field.name)))
        self.check()

    def check(self) -> None:
        """Check limits that involve several knobs; sections override it."""

    @classmethod
    def title(cls) -> str:
        """The section's name in the configuration."""
        return cls.__name__.removesuffix("Settings").lower()

    @classmethod
    def of(cls: type[_Section], knobs: Any) -> _Section:
        """The section with the values of `knobs`, {knob: value}, and the defaults elsewhere. Raises: ConfigError."""
        if not isinstance(knobs, dict):
            raise ConfigError(f"{cls.title()} = {knobs!r}: must be a section of knobs, as in {cls.title()}.NAME=VALUE")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in knobs:
            if new_name := RENAMED.get(f"{cls.title()}.{name}"):
                raise ConfigError(f"{cls.title()}.{name} was renamed: set {cls.title()}.{new_name} instead")
            if name not in known:
                hint = did_you_mean(name, known, f"{cls.title()}.") or f": {cls.title()} has {', '.join(known)}"
                raise ConfigError(f"unknown knob {cls.title()}.{name}{hint}")
        return cls(**knobs)

    @classmethod
    def from_json(cls: type[_Section], text: str) -> _Section:
        """The section that `to_json` wrote.

        Raises:
            ConfigError: invalid JSON, an unknown knob, or an impossible value.
        """
        try:
            knobs: Any = regular_files.parse_json(text)
        except ValueError as error:
            raise ConfigError(f"the section {cls.title()} is not JSON: {error}") from error
        return cls.of(knobs)

    def to_json(self) -> str:
        """The section as JSON. Equal values give equal texts, which TFX's cache compares."""
        return json.dumps(self.given(), sort_keys=True, default=str)

    def given(self) -> dict[str, Any]:
        """The values of the knobs, as `of` takes them."""
        return dataclasses.asdict(self)

    def refuse(self, name: str, problem: str) -> None:
        """Raise the ConfigError for knob `name`."""
        raise ConfigError(f"{self.title()}.{name} = {getattr(self, name)!r}: {problem}")

    def require_path(self, name: str) -> None:
        """Raise the ConfigError for knob `name` if it holds a URI, which would create a folder named `gs:`."""
        if _URI.match(getattr(self, name)):
            self.refuse(name, "must be a local or mounted POSIX path, not a URI")

    def _checked(self, field: dataclasses.Field, value: Any) -> Any:
        default: Any = field.default
        kind = type(default)
        if kind is tuple and isinstance(value, list):
            value = tuple(value)
        if kind is float and type(value) is int:
            value = float(value)
        object.__setattr__(self, field.name, value)
        if type(value) is not kind:
            self.refuse(field.name, f"must be of type {kind.__name__}, not {type(value).__name__}")
        if kind is tuple and default:
            element = type(default[0])
            for item in value:
                if type(item) is not element:
                    self.refuse(field.name, f"must hold values of type {element.__name__}, found {item!r}")
        limits = field.metadata
        for item in value if kind is tuple else (value,):
            if isinstance(item, float) and not math.isfinite(item):
                self.refuse(field.name, "must be a finite number")
            if limits["at_least"] is not None and not item >= limits["at_least"]:
                self.refuse(field.name, f"must be at least {limits['at_least']} {limits['unit']}".rstrip())
            if limits["at_most"] is not None and not item <= limits["at_most"]:
                self.refuse(field.name, f"must be at most {limits['at_most']} {limits['unit']}".rstrip())
        if limits["choices"] and value not in limits["choices"]:
            self.refuse(field.name, f"must be one of {', '.join(map(repr, limits['choices']))}")
        return value


@dataclasses.dataclass(frozen=True)
class Data(Section):
    """The pairs of numbers to generate, the task to learn from them, and their splits."""

    task: str = knob(
        ADDITION.name,
        "The task, from the data to the server's answers: a + b, a - b, or whether a > b.",
        choices=tuple(TASKS),
    )
    seed: int = knob(1, "The same seed gives the same records, byte for byte.", at_least=0, at_most=2**63 - 1)
    span: int = knob(
        0,
        "The part of the data that this run sees; a pair's split never depends on it. A number, or a date (2026-11-22) "
        "for the days since 1970-01-01. 0 for a single run, 1 or more for a run in a series.",
        at_least=0,
        at_most=2**31 - 1,
    )
    max_length: int = knob(
        8,
        "Longest numbers in the train and eval splits. Short on purpose: the model must generalize to longer ones.",
        unit="bits",
        at_least=1,
        at_most=31,
    )
    train_examples: int = knob(8000, "Pairs in the train split.", unit="pairs", at_least=1)
    eval_examples: int = knob(2000, "Pairs in the eval split.", unit="pairs", at_least=1)
    eval_fraction: float = knob(
        0.25,
        "Fraction of all pairs reserved for eval in every span, so that no span leaks into another's training.",
        at_least=0.01,
        at_most=0.9,
    )
    long_lengths: tuple = knob(
        (16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
        "Lengths in the long split, which is never trained on; each has structured and random pairs.",
        unit="bits",
        at_least=2,
        at_most=1_000_000,
    )
    long_examples: int = knob(64, "Pairs of each length in the long split.", unit="pairs", at_least=1)
    shards: int = knob(
        2, "Files per split; this many workers can write at the same time.", unit="files", at_least=1, at_most=10_000
    )

    # The date that the span was given as; empty for a number.
    span_date = ""

    def __post_init__(self) -> None:
        given: Any = self.span
        if isinstance(given, str):
            # A date in JSON.
            try:
                given = datetime.datetime.strptime(given, "%Y-%m-%d")
            except ValueError:
                self.refuse("span", "must be a number or a date such as 2026-11-22")
        if isinstance(given, datetime.date):
            day = datetime.date(given.year, given.month, given.day)
            object.__setattr__(self, "span", (day - EPOCH).days)
            object.__setattr__(self, "span_date", str(day))
        super().__post_init__()

    @property
    def span_name(self) -> str:
        """The span as it was given: its date or its number."""
        return self.span_date or str(self.span)

    def given(self) -> dict[str, Any]:
        """The values of the knobs, the span as a date if it was given as one."""
        values = super().given()
        return values | {"span": datetime.date.fromisoformat(self.span_date)} if self.span_date else values

    def check(self) -> None:
        """The long lengths increase and start above `max_length`."""
        if list(self.long_lengths) != sorted(set(self.long_lengths)):
            self.refuse("long_lengths", "must increase strictly")
        if self.long_lengths and self.long_lengths[0] <= self.max_length:
            self.refuse("long_lengths", f"must all be longer than data.max_length = {self.max_length} bits")


@dataclasses.dataclass(frozen=True)
class Spans(Section):
    """Runs in a series: the source of their data, the spans to train on, and how far the data may change."""

    source: str = knob(
        "",
        "Folder of folders span-<number> or span-<date> with CSV files (a,b or a,b,sum) or TFRecords, which replace "
        "generated data; empty for generated data. Files beside a SHA256SUMS must match it.",
    )
    missing_newline: str = knob(
        WARN,
        "A CSV file whose last line has no newline may have been cut inside a number: report it, or refuse the span.",
        choices=(WARN, REFUSE),
    )
    window: int = knob(
        3,
        "A run trains on its own span and earlier ones, this many in total.",
        unit="spans",
        at_least=1,
        at_most=10_000,
    )
    max_drift: float = knob(
        0.1,
        "Largest Jensen-Shannon divergence between the bits and lengths of the train split and those of the previous "
        "span; 1 allows any.",
        at_least=0.0,
        at_most=1.0,
    )
    request_log: str = knob(
        "", "Folder of the served model's request log, <request_log_dir>/<model>; empty to compare with no requests."
    )
    max_skew: float = knob(
        0.2,
        "Largest Jensen-Shannon divergence between the bits of the train split and those of the logged requests; 1 "
        "allows any. Lengths are not compared: the model takes numbers of any length.",
        at_least=0.0,
        at_most=1.0,
    )
    least_requests: int = knob(100, "Minimum number of logged pairs for a comparison.", unit="pairs", at_least=1)

    def check(self) -> None:
        """Both folders are paths."""
        self.require_path("source")
        self.require_path("request_log")


@dataclasses.dataclass(frozen=True)
class Train(Section):
    """How the GRU is trained."""

    seed: int = knob(
        1, "Determines the initial weights, the order of the batches and the noise.", at_least=0, at_most=2**31 - 1
    )
    units: int = knob(16, "Size of the hidden state.", unit="units", at_least=1, at_most=4096)
    steps: int = knob(
        1000,
        "Maximum number of batches; with proof.train, training stops proof.extra_steps after the first proof.",
        unit="steps",
        at_least=1,
    )
    batch_size: int = knob(100, "Examples in a batch, of mixed lengths.", unit="examples", at_least=1)
    loss: str = knob(
        "cross_entropy",
        "Cross entropy of the bits, or the article's squared error of sigmoid outputs.",
        choices=("cross_entropy", "quadratic"),
    )
    optimizer: str = knob(
        "adam", "Adam (Kingma & Ba 2015), or plain stochastic gradient descent.", choices=("adam", "sgd")
    )
    learning_rate: float = knob(0.02, "Step size of the optimizer.", at_least=1e-9, at_most=10.0)
    clip_norm: float = knob(1.0, "Gradients are scaled down to this global norm; 0 turns clipping off.", at_least=0.0)
    state_noise: float = knob(
        0.0,
        "Half-width of the uniform noise added to the hidden state at each time step of the training. Without "
        "proof.train, 0 often looks right and fails on structured numbers; 0.5 seldom does.",
        at_least=0.0,
        at_most=10.0,
    )
    update_bias: float = knob(
        0.0, "Initial bias of the update gate z; the other biases start at 0.", at_least=-20.0, at_most=20.0
    )
    report_every: int = knob(50, "Interval of progress reports and TensorBoard scalars.", unit="steps", at_least=1)
    warm_start: bool = knob(
        True,
        "In a series, start from the weights of the last model that was evaluated and proven on an earlier span, if "
        "their shapes match.",
    )
    min_steps: int = knob(
        100,
        "No certificate counts before this step, or the last one if that is earlier: a warm start may be proven before "
        "it has seen the new data.",
        unit="steps",
        at_least=1,
    )
    run_fn: str = knob(
        "components.training.trainer.run_fn",
        "Full name of the function that TFX's Trainer calls; replace it to train another cell.",
    )


@dataclasses.dataclass(frozen=True)
class ProofSettings(Section):
    """The proof that a model computes its task for any length: how to train for it, find it and use it."""

    required: bool = knob(
        True, "Push only a proven model. false is for cells and tasks without a proof; every output then says so."
    )
    train: bool = knob(
        True,
        "Also train with the provability loss, which encodes the rules of the task. false: only the loss on examples.",
    )
    box_steps: int = knob(
        5,
        "Abstract steps of the provability loss. More steps look further ahead and cost more; 8 units need 10.",
        unit="steps",
        at_least=1,
        at_most=100,
    )
    widening: float = knob(
        1e-3,
        "Added on both sides of the boxes before each abstract step, to leave the proof room for rounding.",
        at_least=0.0,
        at_most=1.0,
    )
    target: float = knob(
        0.0,
        "Logit margins above this weigh little in the provability loss; 8 units need 2.",
        at_least=-100.0,
        at_most=100.0,
    )
    share_grow: float = knob(
        0.01, "Added to the share of the provability loss after a step with low data loss.", at_least=0.0, at_most=1.0
    )
    share_shrink: float = knob(
        0.005, "Subtracted from the share after any other step, so that the data come first.", at_least=0.0, at_most=1.0
    )
    max_share: float = knob(
        0.5, "Maximum share of the provability loss; the rest is the data loss's.", at_least=0.0, at_most=1.0
    )
    ready_loss: float = knob(
        0.3,
        "A data loss below this is low. With a provability loss from the first step on, training makes no progress.",
        at_least=0.0,
        at_most=100.0,
    )
    attempt_every: int = knob(
        25,
        "Interval of the attempts at a certificate, once the bound suggests that one exists.",
        unit="steps",
        at_least=1,
    )
    extra_steps: int = knob(
        400,
        "Training continues for this long after the first accepted certificate, for a larger margin.",
        unit="steps",
        at_least=0,
    )
    search_seconds: float = knob(
        20.0,
        "Time to search for a counterexample if no certificate is found.",
        unit="seconds",
        at_least=0.0,
        at_most=86_400.0,
    )
    min_margin_ratio: float = knob(
        0.5,
        "A model is refused if its certified worst margin is below this fraction of the baseline's. Honest retraining "
        "varies; 0 allows any margin.",
        at_least=0.0,
        at_most=1.0,
    )
    margin_cap: float = knob(
        6.0,
        "In that comparison, a larger margin of the baseline counts as this. Margins grow with each warm start, from 5 "
        "to more than 17, and no cold start, such as after a change of train.units, would ever reach half of that.",
        at_least=0.0,
        at_most=1e6,
    )
    parallel_above: int = knob(
        32,
        "A proven model adds longer numbers in chunks that run in parallel; an unproven one adds bit by bit.",
        unit="bits",
        at_least=1,
        at_most=2**31 - 1,
    )
    chunk: int = knob(
        8,
        "Minimum size of a chunk, in whole bytes; chunks grow with the number, so that they fit into a cache. A "
        "long number takes as many steps as a chunk has bits, and twice the work of adding bit by bit.",
        unit="bits",
        at_least=1,
        at_most=2**20,
    )


@dataclasses.dataclass(frozen=True)
class Evaluate(Section):
    """The thresholds that a model must reach to be blessed."""

    exact_match: float = knob(
        1.0, "Minimum fraction of sums with every bit right, at every evaluated length.", at_least=0.0, at_most=1.0
    )
    bit_accuracy: float = knob(
        1.0, "Minimum fraction of right bits, at every evaluated length.", at_least=0.0, at_most=1.0
    )
    max_regression: float = knob(
        0.0,
        "How far exact match may fall below the baseline's, at every length and over all examples.",
        at_least=0.0,
        at_most=1.0,
    )


@dataclasses.dataclass(frozen=True)
class Infra(Section):
    """The model server that must serve the candidate before the push, and the programs that start and query it."""

    serve_command: tuple = knob(
        ("bitsum", "serve"), "Program that serves the candidate; takes the flags of `bitsum serve`."
    )
    probe_command: tuple = knob(
        ("bitsum", "probe"), "Program that queries the server and checks every bit; takes the flags of `bitsum probe`."
    )
    qualify_command: tuple = knob(
        ("bitsum", "qualify"),
        "Program that measures the server's sigmoid and tanh for a proven model; takes the flags of `bitsum qualify`.",
    )
    examples: int = knob(500, "Requests made from each split of the data.", unit="examples", at_least=1)
    start_timeout: float = knob(
        120.0, "The server must serve the model within this time.", unit="seconds", at_least=0.1
    )
    probe_timeout: float = knob(300.0, "The requests must be answered within this time.", unit="seconds", at_least=0.1)
    qualify_timeout: float = knob(
        300.0, "The activations must be measured within this time.", unit="seconds", at_least=0.1
    )
    warmup_examples: int = knob(
        8,
        "Warmup requests stored with the model; a server replays them while loading, so that no user waits for it.",
        unit="examples",
        at_least=1,
        at_most=1000,
    )


@dataclasses.dataclass(frozen=True)
class Serve(Section):
    """The model server after the push."""

    model_name: str = knob("bitsum", "Name under which clients request the model.")
    server: str = knob(
        "auto",
        "auto takes tensorflow_model_server if it is on the PATH, else the embedded server; docker takes the image, "
        "which is never pulled silently.",
        choices=("auto", "embedded", "tensorflow_model_server", "docker"),
    )
    image: str = knob("tensorflow/serving:2.16.1", "Image for server = docker.")
    host: str = knob("127.0.0.1", "Address to listen on; loopback by default.")
    port: int = knob(8500, "gRPC port; 0 takes a free one.", at_least=0, at_most=65535)
    start_timeout: float = knob(
        120.0, "The server must have a version available within this time.", unit="seconds", at_least=0.1
    )
    deadline: float = knob(10.0, "Deadline of each of our requests.", unit="seconds", at_least=0.001)
    poll_interval: float = knob(1.0, "How often the server looks for new versions.", unit="seconds", at_least=0.01)
    max_workers: int = knob(
        0,
        "Requests handled at the same time; 0 means four times the number of CPUs, as in TensorFlow Serving.",
        unit="threads",
        at_least=0,
    )

    def check(self) -> None:
        """The model name can name a folder, and there is an address to listen on."""
        if not self.model_name or "/" in self.model_name:
            self.refuse("model_name", "must be a name without slashes")
        if not self.host.strip():
            self.refuse("host", "must be an address, such as 127.0.0.1, or 0.0.0.0 for all of this machine")
