"""The models of a server and the labels of their versions; a reload changes both while requests run.

Answers as TensorFlow Serving's ServerCore. Differs from ServerCore where ServerCore fails badly:

- A refused config changes nothing; ServerCore keeps it and refuses later reloads for the same reason.
- A new model without a folder or a version is refused at once; ServerCore waits for it forever.
- A new model whose versions fail to load is refused after the first try; ServerCore retries for minutes.
- A model whose folder is gone does not stop the polling of other models.
"""

import contextlib
import copy
import dataclasses
import math
import pathlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from serving import model_config
from serving.runtime.model import Model
from serving.status import Code, StatusError
from serving.versions.loader import LOGGER, Listener, LoadOptions
from serving.versions.servable import AVAILABLE, ServableHandle, not_found
from serving.versions.version_directory import on_disk_versions
from serving.versions.version_manager import VersionManager

if TYPE_CHECKING:
    from tensorflow_serving.apis.model_pb2 import ModelSpec
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

_WAIT_SECONDS = 0.1
_CLOSE_SECONDS = 20.0

_Labels = dict[str, dict[str, int]]
# The error of each version by model, newest version first.
_Failures = dict[str, list[tuple[int, StatusError]]]


class NotAvailable(StatusError):
    """Models did not become available; `causes` are the errors of their newest versions."""

    def __init__(self, message: str, causes: Iterable[StatusError]):
        super().__init__(Code.UNKNOWN, message)
        self.causes = tuple(causes)


@dataclasses.dataclass(frozen=True)
class ManagerOptions:
    """How models are managed.

    poll_interval: seconds between polls of the disk; 0 polls once, and again at each reload; a negative value never
    polls. labels_for_unavailable: whether a new label may point to an unavailable version.
    """

    loading: LoadOptions = dataclasses.field(default_factory=LoadOptions)
    poll_interval: float = 1.0
    labels_for_unavailable: bool = False


class ModelManager:
    """The models of the last accepted config, by name. Thread-safe.

    `listeners` are called for each load and unload: see serving.versions.loader.Listener.

    Args:
        load: makes the model from a version's folder; raises StatusError.
    """

    def __init__(self, load: Callable[[pathlib.Path], Model], options: ManagerOptions = ManagerOptions()):
        self.listeners: list[Listener] = []
        self._load = load
        self._options = options
        self._slots = (
            threading.BoundedSemaphore(options.loading.threads) if options.loading.threads else contextlib.nullcontext()
        )
        self._changed = threading.Condition()
        self._reloading = threading.Lock()
        self._stopped = threading.Event()
        self._config: ModelServerConfig | None = None
        self._models: dict[str, VersionManager] = {}
        self._labels: _Labels = {}
        self._trusted_labels: _Labels = {}

    def start(self, config: "ModelServerConfig", trust_labels: bool = False) -> None:
        """Serve `config`; without a list of models, serve nothing until a reload brings one.

        Args:
            trust_labels: accept all labels before their versions are loaded, because a server accepted them earlier.

        Raises:
            StatusError: the config is refused.
        """
        with self._reloading:
            if config.WhichOneof("config") is not None:
                model_config.check(config)
                labels = self._new_labels(config, trust_labels)
                model_config.check_platforms(config)
                model_config.check_logging(config)
                self._trusted_labels = labels if trust_labels else {}
                for model in config.model_config_list.config:
                    self._follow(model)
                self._config, self._labels = copy.deepcopy(config), labels
        if self._options.poll_interval >= 0:
            self.poll()
        if self._options.poll_interval > 0:
            threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def wait(self, timeout: float | None, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Wait until each model has an available version and the versions of trusted labels are tried.

        Args:
            timeout: seconds; a model then fails with the first try of all its versions. None waits until all retries
            are used up. stopped: ends the wait when it returns true.

        Returns:
            False after `timeout` or when `stopped`.

        Raises:
            NotAvailable: a model has no version that loads.
        """
        names = self._served()
        end = math.inf if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not stopped() and time.monotonic() < end:
                failed = self._failures(names, early=timeout is not None)
                pending = [name for name in names if name not in failed and self._models[name].newest() is None]
                if failed and not pending:
                    raise _unavailable("servable(s)", failed)
                if not pending and self._trusted_labels_tried():
                    return True
                self._changed.wait(_WAIT_SECONDS)
        return False

    def awaited(self) -> list[str]:
        """What the models without a version to load wait for, a line each."""
        interval = self._options.poll_interval
        poll = f"the folder is polled every {interval:g} s" if interval > 0 else "the folder is not polled"
        lines = (self._models[name].awaited() for name in self._served())
        return [f"{line}; {poll}" for line in lines if line]

    def reload(self, config: "ModelServerConfig") -> None:
        """Serve the models of `config` and no others. Waits for new models, not for new versions of the others.

        Raises:
            StatusError: the config is refused; nothing has changed.
        """
        with self._reloading:
            if self._config is None and config.WhichOneof("config") is None:
                return
            model_config.check(config, self._config)
            labels = self._new_labels(config, force=False)
            model_config.check_platforms(config)
            before = set(self._served())
            listed = {model.name: model for model in config.model_config_list.config}
            new = {name: model for name, model in listed.items() if name not in before}
            for model in new.values():
                _check_versions(model)
            model_config.check_logging(config)
            self._add(new)
            for name in listed.keys() & before:
                self._follow(listed[name])
            self._config, self._labels, self._trusted_labels = copy.deepcopy(config), labels, {}
            self._leave(before - listed.keys())
        if self._options.poll_interval <= 0:
            self.poll()

    def handle(self, spec: "ModelSpec") -> ServableHandle:
        """A context of the (version, model) that `spec` names. Raises: StatusError, also on entering."""
        name = spec.name
        if not name:
            raise StatusError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        version = None
        if choice == "version":
            version = spec.version.value
        elif choice == "version_label":
            version = self._labels.get(name, {}).get(spec.version_label)
            if version is None:
                raise StatusError(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}")
        versions = self._models.get(name)
        if versions is None:
            raise not_found(name, version)
        return versions.handle(version)

    def status(self, spec: "ModelSpec") -> list[tuple[int, str, StatusError | None]]:
        """(version, state, error) of the versions that `spec` names, newest first; ignores labels. Raises:
        StatusError."""
        states = self._models[spec.name].status() if spec.name in self._models else []
        if spec.HasField("version"):
            version = spec.version.value
            states = [state for state in states if state[0] == version]
            if not states:
                raise StatusError(Code.NOT_FOUND, f"Could not find version {version} of model {spec.name}")
        if not states:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        return states

    def states(self) -> dict[str, list[tuple[int, str, StatusError | None]]]:
        """(version, state, error) of each version, newest first, of every model that was ever served."""
        return {name: versions.status() for name, versions in self._models.items()}

    def newest(self, name: str) -> int | None:
        """The highest available version of model `name`, if any."""
        return self._models[name].newest() if name in self._models else None

    def folder(self, name: str, version: int) -> str:
        """The folder that `version` of model `name` was loaded from."""
        return str(self._models[name].folder(version))

    def poll(self) -> None:
        """Poll the folders of all models once."""
        for versions in list(self._models.values()):
            versions.poll()

    def close(self) -> None:
        """Unload everything; runs in progress are cancelled, loads in progress are awaited for a while.

        A process that ends while TensorFlow loads a model ends by SIGABRT.
        """
        self._stopped.set()
        managers, end = list(self._models.values()), time.monotonic() + _CLOSE_SECONDS
        for versions in managers:
            versions.close()
        for versions in managers:
            versions.wait_for_loads(end)

    def _watch(self) -> None:
        while not self._stopped.wait(self._options.poll_interval):
            self.poll()

    def _served(self) -> list[str]:
        return [model.name for model in self._config.model_config_list.config] if self._config is not None else []

    def _follow(self, model: "ModelConfig") -> VersionManager:
        versions = self._models.get(model.name)
        if versions is None:
            versions = VersionManager(
                model.name, self._load, self._options.loading, self._changed, self._slots, self.listeners
            )
            # Replaced, not changed: requests look up models without a lock.
            self._models = {**self._models, model.name: versions}
        versions.follow(model_config.base_path(model), model_config.policy(model))
        return versions

    def _add(self, new: "dict[str, ModelConfig]") -> None:
        """Serve new models once each has an available version; on failure, none of them."""
        for model in new.values():
            self._follow(model).poll()
        failed: _Failures = {}
        with self._changed:
            while not self._stopped.is_set():
                failed = self._failures(new, early=True, with_fallback=False)
                if all(name in failed or self._models[name].newest() is not None for name in new):
                    break
                self._changed.wait(_WAIT_SECONDS)
        if failed or self._stopped.is_set():
            self._leave(new)
            raise _unavailable("model(s)", failed)

    def _failures(self, names: Iterable[str], early: bool, with_fallback: bool = True) -> _Failures:
        failures = {name: self._models[name].failures(early, with_fallback) for name in names}
        return {name: errors for name, errors in failures.items() if errors}

    def _leave(self, names: Iterable[str]) -> None:
        for name in names:
            self._models[name].leave()

    def _new_labels(self, config: "ModelServerConfig", force: bool) -> _Labels:
        """The labels of `config`. Raises: StatusError, a label points to an unavailable version."""
        labels: _Labels = {}
        for model in config.model_config_list.config:
            old = self._labels.get(model.name, {})
            for label, version in sorted(model.version_labels.items()):
                allowed = force or (self._options.labels_for_unavailable and old.get(label, version) == version)
                versions = self._models.get(model.name)
                if not allowed and not (versions and versions.state(version) == AVAILABLE):
                    raise StatusError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference",
                    )
                labels.setdefault(model.name, {})[label] = version
        return labels

    def _trusted_labels_tried(self) -> bool:
        return all(
            self._models[name].tried(version)
            for name, labels in self._trusted_labels.items()
            for version in labels.values()
        )


def _check_versions(model: "ModelConfig") -> None:
    """Refuse a new model without a folder or a version that its policy chooses. Raises: StatusError."""
    base_path = model_config.base_path(model)
    on_disk = on_disk_versions(base_path)
    if on_disk is None:
        raise StatusError(
            Code.INVALID_ARGUMENT,
            f"Could not find base path {model.base_path} for servable {model.name} with error NOT_FOUND: "
            f"{base_path} not found",
        )
    if not model_config.policy(model)(on_disk):
        raise StatusError(
            Code.NOT_FOUND, f"Unable to find a numerical version path for servable {model.name} at: {model.base_path}"
        )


def _unavailable(what: str, failed: _Failures) -> NotAvailable:
    listed = "".join(
        f"{{{{name: {name} version: {versions[0][0]}}} due to error: {versions[0][1].described()}}}, "
        for name, versions in sorted(failed.items())
    )
    LOGGER.warning("%d %s did not become available", len(failed), what)
    causes = [versions[0][1] for versions in failed.values()]
    return NotAvailable(f"{len(failed)} {what} did not become available: {{{listed}}}", causes)
