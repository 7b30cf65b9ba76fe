"""The ML Metadata store: where it is, and what it knows of a run."""

import dataclasses
import pathlib

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.errors import BitsumError, ConfigError
from pipeline.config import Config, Metadata

_PORTS = {"mysql": 3306, "postgresql": 5432}
_RUN_CONTEXT = "pipeline_run"


@dataclasses.dataclass(frozen=True)
class Output:
    """An artifact that a step of a run put out, or took from the cache."""

    node: str
    key: str
    artifact: mlmd.Artifact

    def integer(self, name: str) -> int:
        return self.artifact.custom_properties[name].int_value if name in self.artifact.custom_properties else 0

    def text(self, name: str) -> str:
        return self.artifact.custom_properties[name].string_value if name in self.artifact.custom_properties else ""


def connection(config: Config) -> mlmd.ConnectionConfig:
    """Where the metadata store is, as ML Metadata wants to be told.

    Raises:
        ConfigError: the password file cannot be read.
    """
    knobs = config.metadata
    result = mlmd.ConnectionConfig()
    if knobs.backend == "sqlite":
        result.sqlite.filename_uri = str(sqlite_file(config))
        result.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        return result
    port = knobs.port or _PORTS[knobs.backend]
    if knobs.backend == "mysql":
        database = result.mysql
        database.database, database.port = knobs.database, port
    else:
        database = result.postgresql
        database.dbname, database.port = knobs.database, str(port)
    database.host, database.user, database.password = knobs.host, knobs.user, _password(knobs)
    return result


def sqlite_file(config: Config) -> pathlib.Path:
    """The SQLite file of the metadata."""
    return pathlib.Path(config.metadata.path).expanduser().resolve() if config.metadata.path else config.root / "metadata.sqlite"


def open_store(config: Config) -> metadata_store.MetadataStore:
    """A client of the store.

    Raises:
        BitsumError: it cannot be reached or opened.
    """
    try:
        return metadata_store.MetadataStore(connection(config))
    except Exception as error:
        # ML Metadata raises errors of many modules of its own, all with the database's words in them.
        words = " ".join(str(error).split())
        raise BitsumError(f"cannot open the metadata store ({config.metadata.backend}): {words}") from error


def outputs_of_run(store: metadata_store.MetadataStore, run_id: str) -> list[Output]:
    """What the steps of a run put out, or took from the cache, oldest first."""
    context = store.get_context_by_type_and_name(_RUN_CONTEXT, run_id)
    if context is None:
        return []
    executions = {execution.id: execution for execution in store.get_executions_by_context(context.id)}
    types = {kind.id: kind.name for kind in store.get_execution_types()}
    events = [event for event in store.get_events_by_execution_ids(list(executions)) if event.type == mlmd.Event.OUTPUT]
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id(sorted({event.artifact_id for event in events}))}
    return [
        Output(types[executions[event.execution_id].type_id].rpartition(".")[2], event.path.steps[0].key, artifacts[event.artifact_id])
        for event in sorted(events, key=lambda event: event.artifact_id)
    ]


def _password(knobs: Metadata) -> str:
    if not knobs.password_file:
        return ""
    try:
        return pathlib.Path(knobs.password_file).expanduser().read_text().splitlines()[0]
    except (OSError, IndexError) as error:
        raise ConfigError(f"metadata.password_file = {knobs.password_file!r} cannot be read, or is empty: {error}") from error
