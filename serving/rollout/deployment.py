"""One model of a model server and the model config file that is the truth of what it serves.

The server forgets: labels set by a reload are gone at a restart, no call returns the config, and a reload realises only
what it carries. So every change is a reload that the server accepted and then the file, whole or not at all; a restart
with that file comes back to the same state. Once the file is written the change has happened, and nothing that fails
later undoes it; before that the server gets its old config back. What a label points to is asked of the server
(GetModelMetadata), not of the file.
"""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from components import atomic
from components.errors import MODEL_CODES, BitsumError, Refusal
from serving import model_config, protos
from serving.client.connection import Connection, new_channel
from serving.errors import InvalidRequest, ModelNotFound, ServingError
from serving.labels import STABLE

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

_POLL_SECONDS = 0.05
_CALL_SECONDS = 10.0
# After these nobody knows whether the server has done what it was asked; after others it has not.
_LOST = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL", "ABORTED"}
# A RuntimeError is Python's, where the system allows no more threads, of which gRPC needs some.
_LEAVING = {"UNLOADING", "END"}


class Deployment:
    """`model_name` on the server at `target`, by the model config file `config_file`; close it after use.

    Args:
        credentials: for TLS; None for a connection in plain text.
        reload_timeout: seconds that the server may take to accept a config.
    """

    def __init__(
        self,
        target: str,
        model_name: str,
        config_file: pathlib.Path,
        credentials: grpc.ChannelCredentials | None = None,
        reload_timeout: float = 30.0,
    ):
        self.target = target
        self.model_name = model_name
        self.config_file = config_file
        self._credentials = credentials
        self._reload_timeout = reload_timeout
        self._channel = new_channel(target, credentials)
        self._models = protos.load().model_service.ModelServiceStub(self._channel)

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_: Any) -> None:
        self._channel.close()

    def client_options(self) -> dict[str, Any]:
        """What a client of this model needs beside the version."""
        return {"target": self.target, "model_name": self.model_name, "credentials": self._credentials}

    def config(self) -> "ModelServerConfig":
        """The config in the file.

        Raises:
            BitsumError: there is none that can be read, or it does not fix the versions of this model.
        """
        if not self.config_file.exists():
            raise BitsumError(
                f"there is no model config file {self.config_file}: bitsum serve --model_config_file writes one, --config_file names "
                "another"
            )
        config = model_config.read(self.config_file)
        entry = _entry(config, self.model_name)
        if entry is None:
            raise BitsumError(f"{self.config_file} has no model {self.model_name}: --model_name names another")
        if entry.model_version_policy.WhichOneof("policy_choice") != "specific" or STABLE not in entry.version_labels:
            raise BitsumError(
                f"{self.config_file} does not say which version of {self.model_name} is {STABLE}: give it the policy specific, with "
                f"versions, and a label {STABLE}"
            )
        return config

    def labels(self) -> dict[str, int]:
        """Versions of this model by label, as the file has them. Raises: BitsumError."""
        return dict(_entry(self.config(), self.model_name).version_labels)

    def base_path(self) -> pathlib.Path:
        """The folder of the model's versions. Raises: BitsumError."""
        return model_config.base_path(_entry(self.config(), self.model_name))

    def apply(self, config: "ModelServerConfig") -> None:
        """Let the server serve `config`, and write it down once it was accepted.

        Raises:
            ServingError: the server refuses it, or cannot be asked; the file is as it was. BitsumError: the file cannot
            be written, and the server has the config that the file has not: `restoring` takes it back.
        """
        self._reload(config)
        wanted = _entry(config, self.model_name)
        if wanted is not None and STABLE in wanted.version_labels:
            self._confirm(wanted.version_labels[STABLE])
        if self._written() != config:
            model_config.write(self.config_file, config)

    @contextlib.contextmanager
    def restoring(self, back: "ModelServerConfig") -> Iterator[None]:
        """Gives the server and the file `back` when the context fails, however it fails, before the file's stable
        version changed.

        Raises:
            BitsumError, KeyboardInterrupt: what ended the context; the text says so where server and file may differ
            now.
        """
        try:
            yield
        except BaseException as failure:
            # A file that cannot be read now could not be written either.
            if self._stable_on_file() not in (None, _entry(back, self.model_name).version_labels[STABLE]):
                raise
            try:
                self.apply(back)
            except (BitsumError, RuntimeError) as error:
                text = f"what was served before could not be restored ({error})"
                if isinstance(failure, KeyboardInterrupt):
                    raise type(failure)(text) from failure
                raise BitsumError(f"{failure}; {text}: {self.state()}") from failure
            if isinstance(failure, KeyboardInterrupt):
                # It may say that the file is written, which by now is as it was.
                raise type(failure)() from failure
            raise

    def state(self) -> str:
        """Which version is stable now, by the server and by the file, and what to do where they differ; for people."""
        on_file = self._stable_on_file()
        try:
            answering = str(self.served(STABLE))
        except (BitsumError, RuntimeError):
            answering = ""
        if answering == str(on_file):
            return f"version {on_file} is {STABLE}"
        said = f"{self.target} " + (
            f"answers for {STABLE} with version {answering}" if answering else "does not say which version it serves"
        )
        if on_file is None:
            return f"{self.config_file} cannot be read, {said}: bitsum rollout VERSION brings both in step"
        return f"{self.config_file} has version {on_file} as {STABLE}, {said}: bitsum rollout {on_file} brings both in step"

    def _reload(self, config: "ModelServerConfig") -> None:
        request = protos.load().management.ReloadConfigRequest(config=config)
        try:
            self._models.HandleReloadConfigRequest(request, timeout=self._reload_timeout)
        except grpc.RpcError as error:
            code, details = error.code().name, (error.details() or "no details").splitlines()[0]
            if code in _LOST and self._serves(config):
                return
            raise ServingError(
                f"{self.target} did not accept the new model config: {details} [{code}]", code
            ) from error

    def _serves(self, config: "ModelServerConfig") -> bool:
        """Whether the server has come to serve exactly the versions and labels of `config`."""
        wanted = _entry(config, self.model_name)
        connection = Connection(self.target, self.model_name, deadline=_CALL_SECONDS, channel=self._channel)
        try:
            labels = {label: self.served(label) for label in wanted.version_labels}
            versions = {item.version for item in connection.status() if item.state not in _LEAVING}
        except (ServingError, RuntimeError):
            return False
        return labels == dict(wanted.version_labels) and versions == set(wanted.model_version_policy.specific.versions)

    def _confirm(self, stable: int) -> None:
        """Raises: BitsumError, another version answers. That the server accepted the config is enough where it cannot
        be asked."""
        try:
            answering = self.served(STABLE)
        except (ServingError, RuntimeError):
            return
        if answering != stable:
            raise BitsumError(f"{self.target} answers for {STABLE} with version {answering}, not {stable}")

    def _written(self) -> "ModelServerConfig | None":
        try:
            return model_config.read(self.config_file)
        except BitsumError:
            return None

    def _stable_on_file(self) -> int | None:
        entry = _entry(self._written() or protos.load().config.ModelServerConfig(), self.model_name)
        return entry.version_labels[STABLE] if entry and STABLE in entry.version_labels else None

    def served(self, label: str) -> int | None:
        """The version that the server answers for `label`; None where it knows no such label. Raises: ServingError."""
        return served(self.target, self.model_name, label, channel=self._channel)

    def wait_loaded(self, version: int, timeout: float) -> float:
        """Wait until `version` is available; the seconds that it took.

        Raises:
            Refusal: the server says that it does not load, and that this is the version's fault. BitsumError: it is not
            loaded within `timeout` seconds. A server that tries again shows it as loading for minutes.
        """
        connection = Connection(self.target, self.model_name, deadline=_CALL_SECONDS, channel=self._channel)
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
        told = f"version {version} of {self.model_name} does not load within {timeout:g} s: {reason}"
        raise Refusal("rollout", told) if state and state.code in MODEL_CODES else BitsumError(told)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the file for one change at a time. Raises: BitsumError, while another process holds it."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(atomic.lock(self.config_file.with_name(f".{self.config_file.name}.lock")))
            except BlockingIOError as error:
                raise BitsumError(
                    f"another rollout or rollback by {self.config_file} is under way: try again when it is done"
                ) from error
            except OSError as error:
                raise BitsumError(f"cannot lock {self.config_file}: {error.strerror}") from error
            yield


def served(target: str, model_name: str, label: str, deadline: float = _CALL_SECONDS, **options: Any) -> int | None:
    """The version that answers for `label`; None where the server knows no such label.

    Args:
        deadline: in seconds.
        options: more of those that a Connection takes.

    Raises:
        ServingError: the server cannot be asked.
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
    """A copy of `config` in which `model_name` has these labels, and their versions and `loaded` ones; other models
    stay as they are."""
    copy = type(config)()
    copy.CopyFrom(config)
    entry = _entry(copy, model_name)
    entry.ClearField("model_version_policy")
    entry.model_version_policy.specific.versions.extend(sorted({*labels.values(), *loaded}))
    entry.version_labels.clear()
    entry.version_labels.update(labels)
    return copy


def _entry(config: "ModelServerConfig", name: str) -> "ModelConfig | None":
    return next((model for model in config.model_config_list.config if model.name == name), None)
