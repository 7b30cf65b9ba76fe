"""Every knob of every step: its default, its unit, its limits and why it is there.

Each section is a frozen dataclass; `pipeline.config` puts the sections into one tree and reads it from files and the
command line. A section that exists is valid: an impossible value is refused, by name, when it is made.
"""

import dataclasses
import datetime
import json
import math
import re
from typing import Any, TypeVar

from components.errors import ConfigError
from components.suggestions import did_you_mean
from components.task.transducer import ADDITION, TASKS

# TFX, too, numbers the spans that are dates in days since then.
EPOCH = datetime.date(1970, 1, 1)

_Section = TypeVar("_Section", bound="Section")

# Renamed knobs: a configuration that has the old name is refused with the new one.
RENAMED = {
    "data.eval_share": "eval_fraction",
    "train.least_steps": "min_steps",
    "proof.share_most": "max_share",
    "proof.margin_share": "min_margin_ratio",
    "proof.margin_enough": "margin_cap",
}

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|file:")


def knob(default: Any, why: str, *, unit: str = "", at_least=None, at_most=None, choices: tuple = ()) -> Any:
    """A dataclass field with its documentation and its limits in the metadata."""
    return dataclasses.field(
        default=default,
        metadata={"why": why, "unit": unit, "at_least": at_least, "at_most": at_most, "choices": choices},
    )


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the configuration; checks the types and limits of its knobs when it is made.

    Raises:
        ConfigError: naming the knob, the value and the limit.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, self._checked(field, getattr(self, field.name)))
        self.check()

    def check(self) -> None:
        """What limits on single knobs cannot say; sections override it."""

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
            ConfigError: no JSON, a knob that is unknown, or an impossible value.
        """
        try:
            knobs = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the section {cls.title()} is no JSON: {error}") from error
        return cls.of(knobs)

    def to_json(self) -> str:
        """The section as JSON, the same text for the same values: TFX's cache compares it."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def refuse(self, name: str, problem: str) -> None:
        """Raise the ConfigError for knob `name`."""
        raise ConfigError(f"{self.title()}.{name} = {getattr(self, name)!r}: {problem}")

    def require_path(self, name: str) -> None:
        """Raise the ConfigError for knob `name` if it holds a URI: a folder named `gs:` would be made for it."""
        if _URI.match(getattr(self, name)):
            self.refuse(name, "must be a local or mounted POSIX path, not a URI")

    def _checked(self, field: dataclasses.Field, value: Any) -> Any:
        kind = type(field.default)
        if kind is tuple and isinstance(value, list):
            value = tuple(value)
        if kind is float and type(value) is int:
            value = float(value)
        object.__setattr__(self, field.name, value)
        if type(value) is not kind:
            self.refuse(field.name, f"must be of type {kind.__name__}, not {type(value).__name__}")
        if kind is tuple and field.default:
            element = type(field.default[0])
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
    """Which pairs of numbers are generated, what is to be learned of them, and how they are split."""

    task: str = knob(
        ADDITION.name,
        "What is computed, from the data to the answers of the server: a + b, a - b, or whether a > b.",
        choices=tuple(TASKS),
    )
    seed: int = knob(1, "The same seed gives the same records, byte for byte.", at_least=0, at_most=2**63 - 1)
    span: int = knob(
        0,
        "Which portion of the data this run sees; a pair's split never depends on it. A number, or a date (2026-11-22), which stands "
        "for the days since 1970-01-01. 0 for a run on its own, from 1 on for a run in a series.",
        at_least=0,
        at_most=2**31 - 1,
    )
    max_length: int = knob(
        8,
        "Longest numbers of the train and eval splits. Short on purpose: what is longer must be generalized to.",
        unit="bits",
        at_least=1,
        at_most=31,
    )
    train_examples: int = knob(8000, "Pairs in the train split.", unit="pairs", at_least=1)
    eval_examples: int = knob(2000, "Pairs in the eval split.", unit="pairs", at_least=1)
    eval_fraction: float = knob(
        0.25,
        "Share of all pairs that can only ever be in eval, so that no span leaks into another's training.",
        at_least=0.01,
        at_most=0.9,
    )
    long_lengths: tuple = knob(
        (16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
        "Lengths of the long split, which no training sees; each has its structured cases besides random ones.",
        unit="bits",
        at_least=2,
        at_most=1_000_000,
    )
    long_examples: int = knob(64, "Pairs of each length of the long split.", unit="pairs", at_least=1)
    shards: int = knob(
        2, "Files per split: as many workers can write one at the same time.", unit="files", at_least=1, at_most=10_000
    )

    def __post_init__(self):
        if isinstance(self.span, datetime.date):
            object.__setattr__(
                self, "span", (datetime.date(self.span.year, self.span.month, self.span.day) - EPOCH).days
            )
        super().__post_init__()

    def check(self) -> None:
        if list(self.long_lengths) != sorted(set(self.long_lengths)):
            self.refuse("long_lengths", "must increase strictly")
        if self.long_lengths and self.long_lengths[0] <= self.max_length:
            self.refuse("long_lengths", f"must all be longer than data.max_length = {self.max_length} bits")


@dataclasses.dataclass(frozen=True)
class Spans(Section):
    """Runs in a series: where their data comes from, how much of it is trained on, and how much it may change."""

    source: str = knob(
        "",
        "Folder with folders span-<number> or span-<date> of CSV files (a,b or a,b,sum) or TFRecords, which are taken instead of "
        "generated data; empty for generated data.",
    )
    window: int = knob(
        3,
        "A run trains on its own span and the ones before it, so many in all.",
        unit="spans",
        at_least=1,
        at_most=10_000,
    )
    max_drift: float = knob(
        0.1,
        "How far the distributions of bits and lengths in the train split may be from those of the span before it, as "
        "Jensen-Shannon divergence; 1 allows all.",
        at_least=0.0,
        at_most=1.0,
    )
    request_log: str = knob(
        "",
        "Folder of the requests that the served model logged, <request_log_dir>/<model>; empty for none to compare with.",
    )
    max_skew: float = knob(
        0.2,
        "How far the distribution of bits in the train split may be from that in the logged requests, as Jensen-Shannon "
        "divergence; 1 allows all. Lengths are not compared: the model is for any.",
        at_least=0.0,
        at_most=1.0,
    )
    least_requests: int = knob(
        100, "With fewer pairs in the request log nothing is compared.", unit="pairs", at_least=1
    )

    def check(self) -> None:
        self.require_path("source")
        self.require_path("request_log")


@dataclasses.dataclass(frozen=True)
class Train(Section):
    """How the GRU is trained."""

    seed: int = knob(
        1, "Initial weights, order of the batches and noise all derive from it.", at_least=0, at_most=2**31 - 1
    )
    units: int = knob(16, "Size of the hidden state.", unit="units", at_least=1, at_most=4096)
    steps: int = knob(
        1000,
        "The most batches that the optimizer sees; with proof.train it stops proof.extra_steps after the first proof.",
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
    clip_norm: float = knob(1.0, "Gradients are scaled down to this global norm; 0 leaves them alone.", at_least=0.0)
    state_noise: float = knob(
        0.0,
        "Half width of the uniform noise that is added to the hidden state at each training step. Without proof.train, 0 often "
        "looks right and fails on structured numbers, where 0.5 seldom does.",
        at_least=0.0,
        at_most=10.0,
    )
    update_bias: float = knob(
        0.0, "Initial bias of the update gate z; the other biases start at 0.", at_least=-20.0, at_most=20.0
    )
    report_every: int = knob(50, "Interval of the progress reports and TensorBoard scalars.", unit="steps", at_least=1)
    warm_start: bool = knob(
        True,
        "In a series, begin with the weights of the last model that was evaluated and proven on an earlier span, if they have "
        "the shapes of this model's.",
    )
    min_steps: int = knob(
        100,
        "No certificate counts before so many steps (or all, where there are fewer): a warm start may be proven before it has "
        "seen the new data.",
        unit="steps",
        at_least=1,
    )
    run_fn: str = knob(
        "components.training.trainer.run_fn",
        "The function that TFX's Trainer calls, by its full name: another for another cell.",
    )


@dataclasses.dataclass(frozen=True)
class ProofSettings(Section):
    """The proof that a model computes its task for any length: what is trained for it, what is asked of it, what it
    buys."""

    required: bool = knob(
        True, "Only a proven model is pushed. false is for cells and tasks without a proof; every output says so."
    )
    train: bool = knob(
        True,
        "Train with the provability loss too, which holds the rules of the task. false: the plain loss on examples.",
    )
    box_steps: int = knob(
        5,
        "Abstract steps of the provability loss. More of them see further and cost more; 8 units need 10.",
        unit="steps",
        at_least=1,
        at_most=100,
    )
    widening: float = knob(
        1e-3,
        "Added on both sides of the boxes before each abstract step, so that the proof has room for rounding.",
        at_least=0.0,
        at_most=1.0,
    )
    target: float = knob(
        0.0,
        "Margins of the logits beyond this weigh little in the provability loss; 8 units need 2.",
        at_least=-100.0,
        at_most=100.0,
    )
    share_grow: float = knob(
        0.01, "Added to the share of the provability loss after a step with a low data loss.", at_least=0.0, at_most=1.0
    )
    share_shrink: float = knob(
        0.005, "Taken from the share after any other step, so that the data come first.", at_least=0.0, at_most=1.0
    )
    max_share: float = knob(0.5, "The share grows up to this; the rest is the data loss's.", at_least=0.0, at_most=1.0)
    ready_loss: float = knob(
        0.3,
        "A data loss below this is low. A provability loss that counts from the first step on never gets going.",
        at_least=0.0,
        at_most=100.0,
    )
    attempt_every: int = knob(
        25,
        "Interval of the attempts at a certificate, once the bound says that there may be one.",
        unit="steps",
        at_least=1,
    )
    extra_steps: int = knob(
        400,
        "Trained on for so long after the first accepted certificate, for a larger margin.",
        unit="steps",
        at_least=0,
    )
    search_seconds: float = knob(
        20.0,
        "How long a counterexample is looked for where no certificate is found.",
        unit="seconds",
        at_least=0.0,
        at_most=86_400.0,
    )
    min_margin_ratio: float = knob(
        0.5,
        "A model is refused whose certified worst margin is below this share of that of the model it is compared with. Honest "
        "retraining varies; 0 allows all.",
        at_least=0.0,
        at_most=1.0,
    )
    margin_cap: float = knob(
        6.0,
        "In that comparison, the earlier model's margin counts up to this. Margins grow with each warm start, from 5 to 17 and "
        "more, and no cold start, as after a change of train.units, would ever reach half of that.",
        at_least=0.0,
        at_most=1e6,
    )
    parallel_above: int = knob(
        32,
        "Longer numbers are added in chunks that run side by side, by a proven model; an unproven one goes bit by bit.",
        unit="bits",
        at_least=1,
        at_most=2**31 - 1,
    )
    chunk: int = knob(
        8,
        "Least size of these chunks, in whole bytes; they grow with the number, so that no more of them run than a cache holds. "
        "A long number takes as many steps as a chunk has bits, and twice the work of going bit by bit.",
        unit="bits",
        at_least=1,
        at_most=2**20,
    )


@dataclasses.dataclass(frozen=True)
class Evaluate(Section):
    """What a model must reach before it is blessed."""

    exact_match: float = knob(
        1.0, "Least share of sums with every bit right, at every evaluated length.", at_least=0.0, at_most=1.0
    )
    bit_accuracy: float = knob(1.0, "Least share of right bits, at every evaluated length.", at_least=0.0, at_most=1.0)
    max_regression: float = knob(
        0.0,
        "How much lower than the last blessed model's its exact match may be, at every length and over all examples.",
        at_least=0.0,
        at_most=1.0,
    )


@dataclasses.dataclass(frozen=True)
class Infra(Section):
    """The model server that the candidate has to run in before it is pushed, and the programs that start and ask it."""

    serve_command: tuple = knob(("bitsum", "serve"), "Program that serves the candidate, as `bitsum serve` does.")
    probe_command: tuple = knob(
        ("bitsum", "probe"), "Program that asks the server and checks every bit, as `bitsum probe` does."
    )
    qualify_command: tuple = knob(
        ("bitsum", "qualify"),
        "Program that measures the server's sigmoid and tanh, as `bitsum qualify` does; for a proven model only.",
    )
    examples: int = knob(500, "Requests made from the data; each split is asked.", unit="examples", at_least=1)
    start_timeout: float = knob(
        120.0, "The server must serve the model within this time.", unit="seconds", at_least=0.1
    )
    probe_timeout: float = knob(300.0, "The requests must be answered within this time.", unit="seconds", at_least=0.1)
    qualify_timeout: float = knob(
        300.0, "The activations must be measured within this time.", unit="seconds", at_least=0.1
    )
    warmup_examples: int = knob(
        8,
        "Requests stored with the model, which a server replays while loading so that no user waits for the first run.",
        unit="examples",
        at_least=1,
        at_most=1000,
    )


@dataclasses.dataclass(frozen=True)
class Serve(Section):
    """The model server after the push."""

    model_name: str = knob("bitsum", "Name under which clients ask for the model.")
    server: str = knob(
        "auto",
        "auto takes tensorflow_model_server where it is on the PATH and the embedded server elsewhere; docker takes "
        "the image, which is never pulled silently.",
        choices=("auto", "embedded", "tensorflow_model_server", "docker"),
    )
    image: str = knob("tensorflow/serving:2.16.1", "Image for server = docker.")
    host: str = knob("127.0.0.1", "Address to listen on; loopback unless told otherwise.")
    port: int = knob(8500, "gRPC port; 0 takes a free one.", at_least=0, at_most=65535)
    start_timeout: float = knob(
        120.0, "The server must have a version available within this time.", unit="seconds", at_least=0.1
    )
    deadline: float = knob(10.0, "Each request of ours is given up after this time.", unit="seconds", at_least=0.001)
    poll_interval: float = knob(1.0, "How often the server looks for new versions.", unit="seconds", at_least=0.01)
    max_workers: int = knob(
        0,
        "Requests that the server works on at the same time; 0 is four times the number of CPUs, as in TensorFlow Serving.",
        unit="threads",
        at_least=0,
    )

    def check(self) -> None:
        if not self.model_name or "/" in self.model_name:
            self.refuse("model_name", "must be a name without slashes")
