"""The models of a server: which are served and how, the labels of their versions, and changing all that while requests
run.

Answers as TensorFlow Serving's ServerCore does, with these differences, all of them where that one comes to harm: a
refused config changes nothing at all, neither now nor in later reloads; a new model without a folder or without
versions is refused at once, and one whose versions do not load after the first try, where the other waits for ever or
for minutes; a model whose folder is gone does not keep other models from being looked after.
"""

import contextlib
import copy
import dataclasses
import pathlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from serving import model_config
from serving.status import Code, StatusError
from serving.versions.servable import AVAILABLE, Model, Use, not_found
from serving.versions.version_directory import on_disk_versions
from serving.versions.version_manager import LOGGER, Listener, Loading, Versions

if TYPE_CHECKING:
    from tensorflow_serving.apis.model_pb2 import ModelSpec
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

_WAIT_SECONDS = 0.1

_Labels = dict[str, dict[str, int]]


class NotAvailable(StatusError):
    """Models did not become available; `causes` are the errors of their versions."""

    def __init__(self, message: str, causes: Iterable[StatusError]):
        super().__init__(Code.UNKNOWN, message)
        self.causes = tuple(causes)


@dataclasses.dataclass(frozen=True)
class Management:
    """How models are managed.

    poll_interval: seconds between two looks at the disk; 0 looks once, and once more at each reload; a negative one
    never looks. labels_for_unavailable: whether a new label may be put on a version that is not available.
    """

    loading: Loading = Loading()
    poll_interval: float = 1.0
    labels_for_unavailable: bool = False


class Models:
    """The models by name, as the last accepted config has them. All methods may be called from any thread.

    `listeners` are told of loads and unloads: see serving.versions.version_manager.Listener.

    Args:
        load: makes the model of a version's folder; raises StatusError.
    """

    def __init__(self, load: Callable[[pathlib.Path], Model], management: Management = Management()):
        self.listeners: list[Listener] = []
        self._load = load
        self._management = management
        self._slots = (
            threading.BoundedSemaphore(management.loading.threads)
            if management.loading.threads
            else contextlib.nullcontext()
        )
        self._changed = threading.Condition()
        self._reloading = threading.Lock()
        self._stopped = threading.Event()
        self._config: ModelServerConfig | None = None
        self._models: dict[str, Versions] = {}
        self._labels: _Labels = {}
        self._trusted: _Labels = {}

    def start(self, config: "ModelServerConfig", trust_labels: bool = False) -> None:
        """Begin to serve `config`; without a list of models nothing is served until a reload brings one.

        Args:
            trust_labels: put all labels where the config has them, though nothing is loaded yet, since that was
            accepted once.

        Raises:
            StatusError: the config is refused.
        """
        with self._reloading:
            if config.WhichOneof("config") is not None:
                model_config.check(config)
                labels = self._new_labels(config, trust_labels)
                model_config.check_platforms(config)
                self._trusted = labels if trust_labels else {}
                for model in config.model_config_list.config:
                    self._follow(model)
                self._config, self._labels = copy.deepcopy(config), labels
        if self._management.poll_interval >= 0:
            self.poll()
        if self._management.poll_interval > 0:
            threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def wait(self, timeout: float | None, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Whether every model has a version available, and all labels that were trusted their versions, within
        `timeout` seconds.

        Args:
            timeout: None waits until all tries to load are used up; else one failed try of all versions of a model is
            enough. stopped: ends the wait when it becomes true.

        Raises:
            NotAvailable: versions that would be needed do not load.
        """
        names = self._served()
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not stopped() and (end is None or time.monotonic() < end):
                failed = {
                    name: found for name in names if (found := self._models[name].failures(early=end is not None))
                }
                pending = [name for name in names if name not in failed and self._models[name].newest() is None]
                if failed and not pending:
                    raise _unavailable("servable(s)", failed)
                if not pending and self._trusted_tried():
                    return True
                self._changed.wait(_WAIT_SECONDS)
        return False

    def reload(self, config: "ModelServerConfig") -> None:
        """Serve `config` from now on, and nothing else. Waits for models that are new, not for new versions of others.

        Raises:
            StatusError: the config is refused, and everything is as it was.
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
            self._add(new)
            for name in listed.keys() & before:
                self._follow(listed[name])
            self._config, self._labels, self._trusted = copy.deepcopy(config), labels, {}
            self._leave(before - listed.keys())
        if self._management.poll_interval <= 0:
            self.poll()

    def use(self, spec: "ModelSpec") -> Use:
        """A context of (version, model) that `spec` asks for, held for the context. Raises: StatusError, also on
        entering."""
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
        return versions.use(version)

    def status(self, spec: "ModelSpec") -> list[tuple[int, str, StatusError | None]]:
        """(version, state, error) of what `spec` asks for, newest first; a label is ignored. Raises: StatusError."""
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
        """(version, state, error) of the versions of every model that was ever served, newest first."""
        return {name: versions.status() for name, versions in self._models.items()}

    def newest(self, name: str) -> int | None:
        """The highest available version of model `name`."""
        return self._models[name].newest() if name in self._models else None

    def folder(self, name: str, version: int) -> str:
        """The folder that a version of model `name` was loaded from."""
        return str(self._models[name].folder(version))

    def poll(self) -> None:
        """Look at the disk once."""
        for versions in list(self._models.values()):
            versions.poll()

    def close(self) -> None:
        """Unload everything; runs that are still under way are cancelled."""
        self._stopped.set()
        for versions in list(self._models.values()):
            versions.close()

    def _watch(self) -> None:
        while not self._stopped.wait(self._management.poll_interval):
            self.poll()

    def _served(self) -> list[str]:
        return [model.name for model in self._config.model_config_list.config] if self._config is not None else []

    def _follow(self, model: "ModelConfig") -> Versions:
        versions = self._models.get(model.name)
        if versions is None:
            versions = Versions(
                model.name, self._load, self._management.loading, self._changed, self._slots, self.listeners
            )
            # Requests look it up without a lock.
            self._models = {**self._models, model.name: versions}
        versions.follow(model_config.base_path(model), model_config.policy(model))
        return versions

    def _add(self, new: "dict[str, ModelConfig]") -> None:
        """Serve models that are new, once each has a version available; on failure none of them."""
        for model in new.values():
            self._follow(model).poll()
        failed = {}
        with self._changed:
            while not self._stopped.is_set():
                failed = {
                    name: found for name in new if (found := self._models[name].failures(early=True, rescued=False))
                }
                if all(name in failed or self._models[name].newest() is not None for name in new):
                    break
                self._changed.wait(_WAIT_SECONDS)
        if failed or self._stopped.is_set():
            self._leave(new)
            raise _unavailable("model(s)", failed)

    def _leave(self, names: Iterable[str]) -> None:
        for name in names:
            self._models[name].leave()

    def _new_labels(self, config: "ModelServerConfig", force: bool) -> _Labels:
        """The labels of `config`. Raises: StatusError, one that may not be put where it is."""
        labels: _Labels = {}
        for model in config.model_config_list.config:
            old = self._labels.get(model.name, {})
            for label, version in sorted(model.version_labels.items()):
                allowed = force or (self._management.labels_for_unavailable and old.get(label, version) == version)
                versions = self._models.get(model.name)
                if not allowed and not (versions and versions.state(version) == AVAILABLE):
                    raise StatusError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name}, which is not currently available for "
                        "inference",
                    )
                labels.setdefault(model.name, {})[label] = version
        return labels

    def _trusted_tried(self) -> bool:
        return all(
            self._models[name].tried(version) for name, labels in self._trusted.items() for version in labels.values()
        )


def _check_versions(model: "ModelConfig") -> None:
    """Refuse a new model that could not become available."""
    base_path = model_config.base_path(model)
    on_disk = on_disk_versions(base_path)
    if on_disk is None:
        raise StatusError(
            Code.INVALID_ARGUMENT,
            f"Could not find base path {model.base_path} for servable {model.name} with error NOT_FOUND: {base_path} not found",
        )
    if not model_config.policy(model)(on_disk):
        raise StatusError(
            Code.NOT_FOUND, f"Unable to find a numerical version path for servable {model.name} at: {model.base_path}"
        )


def _unavailable(what: str, failed: dict[str, list[tuple[int, StatusError]]]) -> NotAvailable:
    listed = "".join(
        f"{{{{name: {name} version: {versions[0][0]}}} due to error: {versions[0][1].described()}}}, "
        for name, versions in sorted(failed.items())
    )
    LOGGER.warning("%d %s did not become available", len(failed), what)
    causes = [versions[0][1] for versions in failed.values()]
    return NotAvailable(f"{len(failed)} {what} did not become available: {{{listed}}}", causes)
