"""The configuration: one frozen tree of sections, read from a TOML file and the command line.

    config = load("bitsum.toml", ["train.steps=300", "data.long_lengths=[16, 100]"])
    config.train.steps                                       # 300

`to_toml` prints the whole tree with the unit and the purpose of every knob: it is the manual of the knobs.
"""

import dataclasses
import datetime
import os
import pathlib
import re
import typing
from typing import Any

from components import regular_files, settings
from components.compat import tomllib
from components.errors import ConfigError
from components.settings import Section, knob
from components.suggestions import did_you_mean

# What Airflow allows for the name of a DAG (airflow.utils.helpers.validate_key), and a little shorter.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
# TensorFlow's and Beam's globs, by which TFX finds the files of an artifact.
_PATTERN = re.compile(rb"[*?\[\]\\]")
# Linux allows 4,096; a run adds the names of artifacts and their files.
_PATH_BYTES = 3500
_NAME_BYTES = 255
# Airflow's own names of schedules.
_CRON_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")


@dataclasses.dataclass(frozen=True)
class Pipeline(Section):
    """The pipeline's folders, and how it runs."""

    name: str = knob("bitsum", "Name of the pipeline in the metadata store.")
    root: str = knob(
        "var",
        "Folder for everything that a run writes: artifacts, metadata, logs, served models. A local or mounted POSIX "
        "path, not a URI.",
    )
    push_to: str = knob("", "Folder of the served versions; empty for <root>/serving/<serve.model_name>.")
    cache: bool = knob(True, "Reuse the outputs of an earlier run's step with the same inputs, knobs and code.")
    lock_timeout: float = knob(
        3600.0,
        "How long a command waits for another one in the same folder before it gives up.",
        unit="seconds",
        at_least=0.0,
    )
    progress_interval: float = knob(
        1.0, "Minimum time between two progress lines without a terminal.", unit="seconds", at_least=0.0
    )

    def check(self) -> None:
        """Check name and folders."""
        if not _NAME.fullmatch(self.name):
            self.refuse("name", "must be 1 to 200 ASCII letters, digits, dots, dashes and underscores, as for Airflow")
        if not self.root:
            self.refuse("root", "must not be empty")
        self.require_path("root")
        self.require_path("push_to")
        self._check_absolute_root()

    def _check_absolute_root(self) -> None:
        if "\0" in self.root:
            self.refuse("root", "must not contain a zero byte")
        path = os.fsencode(os.path.realpath(os.path.expanduser(self.root)))
        if found := _PATTERN.search(path):
            self.refuse("root", f"{os.fsdecode(path)} contains {found[0].decode()}, which TFX takes for a pattern")
        try:
            path.decode()
        except UnicodeDecodeError:
            self.refuse("root", "must be UTF-8, as TFX keeps paths in messages of protocol buffers")
        names = path.split(b"/")
        if len(path) > _PATH_BYTES or max(map(len, names)) > _NAME_BYTES:
            self.refuse("root", f"a path of at most {_PATH_BYTES} bytes, each name of at most {_NAME_BYTES}, is needed")


@dataclasses.dataclass(frozen=True)
class Beam(Section):
    """The runner of the steps that use Apache Beam."""

    args: tuple = knob(
        ("--runner=FnApiRunner", "--direct_running_mode=in_memory"),
        "Beam's own options. The default runs in this process; for a cluster use, for example, --runner=PortableRunner "
        "--job_endpoint=HOST:PORT.",
    )


@dataclasses.dataclass(frozen=True)
class Metadata(Section):
    """The ML Metadata store."""

    backend: str = knob("sqlite", "Kind of database.", choices=("sqlite", "mysql", "postgresql"))
    path: str = knob("", "SQLite file, a local or mounted POSIX path; empty for <pipeline.root>/metadata.sqlite.")
    host: str = knob("127.0.0.1", "Database server (mysql, postgresql).")
    port: int = knob(0, "Port of the database server; 0 for its default port.", at_least=0, at_most=65535)
    database: str = knob("bitsum", "Database name (mysql, postgresql).")
    user: str = knob("bitsum", "Database user (mysql, postgresql).")
    password_file: str = knob("", "File whose first line is the password, which is kept out of the configuration.")

    def check(self) -> None:
        """Check the path."""
        self.require_path("path")


@dataclasses.dataclass(frozen=True)
class Schedule(Section):
    """The pipeline under a scheduler: when it runs, how often a failed node is retried, where failures are reported."""

    cron: str = knob(
        "@daily",
        f"When a run starts, in UTC: five fields of cron, or {', '.join(_CRON_PRESETS)}; empty for manual runs only. "
        "A run covers the interval since the previous one: with @daily, a run at midnight covers the day that has "
        "ended.",
    )
    start: str = knob("2026-01-01", "First day of the schedule, YYYY-MM-DD.")
    catchup: bool = knob(False, "Also start the runs missed since schedule.start.")
    span_hours: int = knob(
        24,
        "Length of a span. A run that names no span has the span that holds its logical date, counted from "
        "1970-01-01, so that spans of 24 hours are TFX's daily spans.",
        unit="hours",
        at_least=1,
        at_most=8760,
    )
    retries: int = knob(
        2, "How often a node is retried after a failure; a refusal by a gate is never retried.", at_least=0, at_most=100
    )
    retry_delay: float = knob(60.0, "Pause before a retry; it doubles each time.", unit="seconds", at_least=0.0)
    node_timeout: float = knob(
        21_600.0, "A node that takes longer is killed and retried; later runs wait.", unit="seconds", at_least=1.0
    )
    parallelism: int = knob(
        2, "Concurrent tasks; each node takes up to 2 GB of memory.", unit="tasks", at_least=1, at_most=1000
    )
    rollout_server: str = knob("", "HOST:PORT of the model server to roll out each new version on; empty for none.")
    rollout_config_file: str = knob("", "The server's model config file, as given to bitsum serve --model_config_file.")
    rollout_options: tuple = knob((), "More options for bitsum rollout, such as --max_latency_ratio=3.")
    webhook_file: str = knob("", "File whose first line is the URL of a webhook for failures; the URL is a secret.")
    database_file: str = knob(
        "", "File whose first line is the SQLAlchemy URL of the scheduler's database; empty for a SQLite file."
    )
    port: int = knob(
        8080, "Port of the scheduler's web page on this machine; 0 picks a free one.", at_least=0, at_most=65535
    )

    def __post_init__(self) -> None:
        if isinstance(self.start, datetime.date):
            object.__setattr__(self, "start", str(self.start))
        super().__post_init__()

    def check(self) -> None:
        """Check the start, the cron and the rollout."""
        try:
            start = datetime.date.fromisoformat(self.start)
        except ValueError:
            self.refuse("start", "must be a day such as 2026-01-31")
        if self.cron and self.cron not in _CRON_PRESETS:
            self._check_cron(start)
        if bool(self.rollout_server) != bool(self.rollout_config_file):
            self.refuse(
                "rollout_server", f"must be set together with rollout_config_file = {self.rollout_config_file!r}"
            )

    def _check_cron(self, start: datetime.date) -> None:
        """Check the cron with Airflow's own reader: Airflow leaves out a DAG that it cannot schedule."""
        import croniter

        try:
            if not self.cron.startswith("@") and len(self.cron.split()) != 5:
                raise ValueError(f"{len(self.cron.split())} fields")
            croniter.croniter(self.cron, datetime.datetime.combine(start, datetime.time())).get_next()
        except ValueError as error:
            self.refuse("cron", f"must be five fields of cron, or {', '.join(_CRON_PRESETS)}: {error}")


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole tree."""

    pipeline: Pipeline = dataclasses.field(default_factory=Pipeline)
    data: settings.Data = dataclasses.field(default_factory=settings.Data)
    spans: settings.Spans = dataclasses.field(default_factory=settings.Spans)
    train: settings.Train = dataclasses.field(default_factory=settings.Train)
    proof: settings.ProofSettings = dataclasses.field(default_factory=settings.ProofSettings)
    evaluate: settings.Evaluate = dataclasses.field(default_factory=settings.Evaluate)
    infra: settings.Infra = dataclasses.field(default_factory=settings.Infra)
    serve: settings.Serve = dataclasses.field(default_factory=settings.Serve)
    beam: Beam = dataclasses.field(default_factory=Beam)
    metadata: Metadata = dataclasses.field(default_factory=Metadata)
    schedule: Schedule = dataclasses.field(default_factory=Schedule)

    @property
    def root(self) -> pathlib.Path:
        """Folder for everything that a run writes, absolute."""
        return pathlib.Path(self.pipeline.root).expanduser().resolve()

    @property
    def push_to(self) -> pathlib.Path:
        """Folder of the served versions, absolute."""
        if self.pipeline.push_to:
            return pathlib.Path(self.pipeline.push_to).expanduser().resolve()
        return self.root / "serving" / self.serve.model_name


def load(path: str | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """The configuration in the TOML file `path`, or the defaults, with `section.knob=value` overrides applied.

    Override values are TOML (`300`, `0.5`, `true`, `[16, 32]`, `"text"`); anything else is text.

    Raises:
        ConfigError: unreadable file, unknown section or knob, impossible value; the text names it.
    """
    tree: dict[str, dict[str, Any]] = {} if path is None else _read(path)
    for override in overrides:
        section, name, value = _parse(override)
        tree.setdefault(section, {})[name] = value
    return from_dict(tree)


def from_dict(tree: dict[str, Any]) -> Config:
    """The configuration that holds `tree`'s values, {section: {knob: value}}, and the defaults elsewhere."""
    sections: dict[str, type[Section]] = typing.get_type_hints(Config)
    values: dict[str, Any] = {}
    for section, knobs in tree.items():
        if section not in sections:
            hint = did_you_mean(section, sections) or f": the sections are {', '.join(sections)}"
            raise ConfigError(f"unknown section {section!r}{hint}")
        values[section] = sections[section].of(knobs)
    return Config(**values)


def to_toml(config: Config) -> str:
    """The tree as a TOML file that gives the purpose, unit and limits of every knob."""
    lines = []
    for section in dataclasses.fields(config):
        value = getattr(config, section.name)
        lines += [f"# {(type(value).__doc__ or '').splitlines()[0]}", f"[{section.name}]"]
        given = value.given()
        for field in dataclasses.fields(value):
            lines += [f"# {_manual(field)}", f"{field.name} = {_toml(given[field.name])}"]
        lines.append("")
    return "\n".join(lines)


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(regular_files.read_argument(path).decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid TOML: nested too deeply") from error


def _parse(override: str) -> tuple[str, str, Any]:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name):
        raise ConfigError(f"invalid override {override!r}: write section.knob=value, as in train.steps=300")
    try:
        return section, name, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return section, name, text
    except RecursionError as error:
        raise ConfigError(f"invalid override of {key}: nested too deeply") from error


def _manual(field: dataclasses.Field) -> str:
    limits = field.metadata
    parts = [limits["why"]]
    if limits["choices"]:
        parts.append("One of " + ", ".join(limits["choices"]) + ".")
    bounds = [
        f"{word} {limits[key]}" for word, key in (("from", "at_least"), ("to", "at_most")) if limits[key] is not None
    ]
    if limits["unit"] or bounds:
        parts.append("[" + " ".join(filter(None, [limits["unit"], *bounds])) + "]")
    return " ".join(parts)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value) if isinstance(value, datetime.date) else repr(value)
