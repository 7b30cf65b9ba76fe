"""One model on a model server, and the model config file that defines what the server serves.

The server keeps no state: a restart loses the labels of a reload, no call returns the config, and a reload applies
exactly the config that it carries. So every change is a reload that the server accepts, followed by an atomic write of
the file; a restart with that file restores the same state. Once the file is written, the change is done and no later
failure undoes it; a failure before that gives the server its old config back. The server (GetModelMetadata), not the
file, tells which version a label points to.
"""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import grpc
from typing_extensions import Self

from components import atomic
from components.errors import MODEL_CODES, BitsumError, Refusal
from serving import defaults, model_config, protos
from serving.client import diagnosis
from serving.client.connection import Connection, new_channel
from serving.errors import InvalidRequest, ModelNotFound, ServerUnavailable, ServingError
from serving.labels import STABLE

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

    from serving.tls import ClientTls

_POLL_SECONDS = 0.05
# After these codes the server may have applied the config or not; after all others it has not.
_UNCERTAIN = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL", "ABORTED"}
# Below, a RuntimeError means that Python could not start a thread for gRPC.
_LEAVING = {"UNLOADING", "END"}


class Deployment:
    """`model_name` on the server at `target` with the model config file `config_file`; a context manager.

    Args:
        credentials: for TLS; None for plain text.
        reload_timeout: time limit of a reload in seconds.
    """

    def __init__(
        self,
        target: str,
        model_name: str,
        config_file: pathlib.Path,
        credentials: "ClientTls | None" = None,
        reload_timeout: float = 30.0,
    ):
        self.target = target
        self.model_name = model_name
        self.config_file = config_file
        self._credentials = credentials
        self._reload_timeout = reload_timeout
        self._channel = new_channel(target, credentials)
        self._models = protos.load().model_service.ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._channel.close()

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments of a client of this model, without the version."""
        return {"target": self.target, "model_name": self.model_name, "credentials": self._credentials}

    def config(self) -> "ModelServerConfig":
        """The config in the file.

        Raises:
            BitsumError: the file cannot be read, or does not fix the versions of this model.
        """
        if not self.config_file.exists():
            raise BitsumError(
                f"model config file {self.config_file} is missing: bitsum serve --model_config_file writes one, "
                "--config_file names another"
            )
        config = model_config.read(self.config_file)
        entry = self._entry(config)
        if entry.model_version_policy.WhichOneof("policy_choice") != "specific" or STABLE not in entry.version_labels:
            raise BitsumError(
                f"{self.config_file} does not fix the {STABLE} version of {self.model_name}: give it the policy "
                f"specific, with versions, and the label {STABLE}"
            )
        return config

    def labels(self) -> dict[str, int]:
        """The versions of this model by label, from the file. Raises: BitsumError."""
        return dict(self._entry(self.config()).version_labels)

    def base_path(self) -> pathlib.Path:
        """The folder of the model's versions. Raises: BitsumError."""
        return model_config.base_path(self._entry(self.config()))

    def apply(self, config: "ModelServerConfig") -> None:
        """Reload the server with `config`, then write the file.

        Raises:
            ServingError: the server refuses the config or does not answer; the file is unchanged.
            BitsumError: the file cannot be written, so the server is ahead of it: `restoring` reverts the server.
        """
        self._reload(config)
        entry = self._entry(config)
        if STABLE in entry.version_labels:
            self._confirm(entry.version_labels[STABLE])
        if self._written() != config:
            model_config.write(self.config_file, config)

    @contextlib.contextmanager
    def restoring(self, back: "ModelServerConfig") -> Iterator[None]:
        """Restore the config `back` on the server and in the file if the context fails in any way before the stable
        version in the file changes.

        Raises:
            BitsumError, KeyboardInterrupt: the failure of the context; the text says if server and file may differ.
        """
        try:
            yield
        except BaseException as failure:
            # If the file cannot be read, it was not written either.
            if self._stable_in_file() not in (None, self._entry(back).version_labels[STABLE]):
                raise
            try:
                self.apply(back)
            except (BitsumError, RuntimeError) as error:
                text = f"the previous config could not be restored ({error})"
                if isinstance(failure, KeyboardInterrupt):
                    raise type(failure)(text) from failure
                raise BitsumError(f"{failure}; {text}: {self.state()}") from failure
            if isinstance(failure, KeyboardInterrupt):
                # Its text may say that the file is written, but the old file is back.
                raise type(failure)() from failure
            raise

    def state(self) -> str:
        """The stable version on the server and in the file, and the remedy if they differ, as text."""
        in_file = self._stable_in_file()
        try:
            answering = str(self.served(STABLE))
        except (BitsumError, RuntimeError):
            answering = ""
        if answering == str(in_file):
            return f"version {in_file} is {STABLE}"
        server = f"{self.target} " + (
            f"serves version {answering} as {STABLE}" if answering else "does not report which version it serves"
        )
        if in_file is None:
            return f"{self.config_file} cannot be read, {server}: bitsum rollout VERSION synchronizes both"
        file = f"{self.config_file} has version {in_file} as {STABLE}"
        return f"{file}, {server}: bitsum rollout {in_file} synchronizes both"

    def _reload(self, config: "ModelServerConfig") -> None:
        request = protos.load().management.ReloadConfigRequest(config=config)
        try:
            self._models.HandleReloadConfigRequest(request, timeout=self._reload_timeout)
        except grpc.RpcError as error:
            code, details = error.code().name, error.details() or "no details"
            if code in _UNCERTAIN and self._serves(config):
                return
            if fault := diagnosis.of(self.target, details, self._credentials, self._reload_timeout):
                raise ServerUnavailable(fault, code) from error
            details = details.splitlines()[0]
            raise ServingError(
                f"{self.target} did not accept the new model config: {details} [{code}]", code
            ) from error

    def _serves(self, config: "ModelServerConfig") -> bool:
        """Whether the server serves exactly the versions and labels of `config`."""
        entry = self._entry(config)
        connection = Connection(self.target, self.model_name, channel=self._channel, credentials=self._credentials)
        try:
            labels = {label: self.served(label) for label in entry.version_labels}
            versions = {item.version for item in connection.status() if item.state not in _LEAVING}
        except (ServingError, RuntimeError):
            return False
        return labels == dict(entry.version_labels) and versions == set(entry.model_version_policy.specific.versions)

    def _confirm(self, stable: int) -> None:
        """Raises: BitsumError, if another version answers. Without an answer, the accepted reload is enough."""
        try:
            answering = self.served(STABLE)
        except (ServingError, RuntimeError):
            return
        if answering != stable:
            raise BitsumError(f"{self.target} serves version {answering} as {STABLE}, not {stable}")

    def _written(self) -> "ModelServerConfig | None":
        try:
            return model_config.read(self.config_file)
        except BitsumError:
            return None

    def _stable_in_file(self) -> int | None:
        try:
            return self._entry(model_config.read(self.config_file)).version_labels.get(STABLE)
        except BitsumError:
            return None

    def served(self, label: str) -> int | None:
        """The version with `label` on the server; None for an unknown label. Raises: ServingError."""
        return served(self.target, self.model_name, label, channel=self._channel, credentials=self._credentials)

    def wait_loaded(self, version: int, timeout: float) -> float:
        """Wait until `version` is available and return the seconds it took.

        Raises:
            Refusal: the server reports that loading failed because of the version itself.
            BitsumError: the version is not loaded within `timeout` seconds. A server that retries shows it as loading
                for minutes.
        """
        connection = Connection(self.target, self.model_name, channel=self._channel, credentials=self._credentials)
        start = time.monotonic()
        state = None
        while time.monotonic() < start + timeout:
            state = next((item for item in connection.status() if item.version == version), None)
            if state and state.state == "AVAILABLE":
                return time.monotonic() - start
            if state and state.error:
                break
            time.sleep(_POLL_SECONDS)
        reason = (
            state.error.splitlines()[0]
            if state and state.error
            else state.state
            if state
            else "the server does not know it"
        )
        text = f"version {version} of {self.model_name} does not load within {timeout:g} s: {reason}"
        raise Refusal("rollout", text) if state and state.code in MODEL_CODES else BitsumError(text)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock on the file, for one change at a time. Raises: BitsumError, if another process holds it."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(atomic.lock(self.config_file.with_name(f".{self.config_file.name}.lock")))
            except BlockingIOError as error:
                raise BitsumError(
                    f"another rollout or rollback with {self.config_file} is running: try again when it is done"
                ) from error
            except OSError as error:
                raise BitsumError(f"cannot lock {self.config_file}: {error.strerror}") from error
            yield

    def _entry(self, config: "ModelServerConfig") -> "ModelConfig":
        """Raises: BitsumError, if `config` lacks this model."""
        return _entry(config, self.model_name, self.config_file)


def served(target: str, model_name: str, label: str, deadline: float = defaults.DEADLINE, **options: Any) -> int | None:
    """The version with `label` on the server; None for an unknown label.

    Args:
        deadline: in seconds.
        options: further keyword arguments of Connection.

    Raises:
        ServingError: the server does not answer.
    """
    connection = Connection(target, model_name, label=label, deadline=deadline, attempts=1, **options)
    try:
        return connection.metadata().version
    except (InvalidRequest, ModelNotFound):
        return None
    finally:
        connection.close()


def with_labels(
    config: "ModelServerConfig", model_name: str, labels: Mapping[str, int], loaded: tuple[int, ...] = ()
) -> "ModelServerConfig":
    """A copy of `config` in which `model_name` has these labels and, as versions, theirs and `loaded`."""
    copy = type(config)()
    copy.CopyFrom(config)
    entry = _entry(copy, model_name, "the config")
    entry.ClearField("model_version_policy")
    entry.model_version_policy.specific.versions.extend(sorted({*labels.values(), *loaded}))
    entry.version_labels.clear()
    entry.version_labels.update(labels)
    return copy


def _entry(config: "ModelServerConfig", name: str, source: object) -> "ModelConfig":
    for model in config.model_config_list.config:
        if model.name == name:
            return model
    raise BitsumError(f"{source} has no model {name}: --model_name names another")
