"""Loads and unloads versions in threads of their own, with retries, and tells listeners and the log."""

import contextlib
import dataclasses
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from serving.runtime.model import Model
from serving.status import Code, StatusError, unforeseen
from serving.versions.servable import Servable
from serving.versions.version_directory import files

if TYPE_CHECKING:
    from serving.versions.version_manager import VersionManager

LOGGER = logging.getLogger("bitsum.serving")

LOAD_STARTED = "load_started"
LOAD_SUCCEEDED = "load_succeeded"
LOAD_FAILED = "load_failed"
UNLOADED = "unloaded"

# Called with the event, the model's name, the version, and the seconds of a load or the StatusError of a failed one.
Listener = Callable[[str, str, int, Any], None]


@dataclasses.dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded.

    max_retries: retries of a failed load while its files stay unchanged.
    retry_interval: seconds between two tries; a negative value does not wait.
    threads: concurrent loads of all models; 0 for any number.
    """

    max_retries: int = 5
    retry_interval: float = 60.0
    threads: int = 0


class Loader:
    """Loads and unloads the versions of one model for `manager`, which keeps their states.

    Args:
        load: makes the model from a version's folder; raises StatusError. slots: held during each load. listeners:
        called for each event, without the lock.
    """

    def __init__(
        self,
        manager: "VersionManager",
        load: Callable[[pathlib.Path], Model],
        options: LoadOptions,
        slots: contextlib.AbstractContextManager,
        listeners: Collection[Listener],
    ):
        self._manager = manager
        self._name = manager.name
        self._load = load
        self._options = options
        self._slots = slots
        self._listeners = listeners
        self._loads: list[threading.Thread] = []

    def start_load(self, servable: Servable) -> None:
        """Load `servable` in a thread of its own, so that a half-written version delays no other."""
        name = f"load-{self._name}-{servable.version}"
        thread = threading.Thread(target=self._load_with_retries, args=(servable,), name=name, daemon=True)
        self._loads = [*filter(threading.Thread.is_alive, self._loads), thread]
        thread.start()

    def wait(self, end: float) -> None:
        """Wait for the loads in progress until the time `end` of time.monotonic."""
        for thread in self._loads:
            thread.join(max(0.0, end - time.monotonic()))

    def start_unload(self, servable: Servable, model: Model) -> None:
        """Close `model` in a thread of its own: neither the lock nor the last caller should wait for it."""
        name = f"unload-{self._name}-{servable.version}"
        threading.Thread(target=self._unload, args=(servable, model), name=name).start()

    def _load_with_retries(self, servable: Servable) -> None:
        retries = self._options.max_retries
        while True:
            files_before = files(servable.path)
            try:
                with self._slots:
                    model, seconds = self._load_once(servable)
            except StatusError as error:
                failure = error
            except Exception as error:
                # An unforeseen failure must not leave the version in LOADING forever.
                failure = unforeseen(error, Code.INTERNAL)
            else:
                if self._manager.on_loaded(servable, model):
                    LOGGER.info("version %d of %s is available", servable.version, self._name)
                    self._notify(LOAD_SUCCEEDED, servable.version, seconds)
                else:
                    model.close()
                return
            first_line = str(failure).partition("\n")[0]
            LOGGER.warning("version %d of %s does not load: %s", servable.version, self._name, first_line)
            self._notify(LOAD_FAILED, servable.version, failure)
            if not self._manager.on_load_failed(servable, failure, files_before, retries):
                return
            retries = self._options.max_retries if servable.files_changed else retries - 1

    def _load_once(self, servable: Servable) -> tuple[Model, float]:
        start = time.monotonic()
        self._manager.on_load_started(servable)
        self._notify(LOAD_STARTED, servable.version, None)
        return self._load(servable.path), time.monotonic() - start

    def _unload(self, servable: Servable, model: Model) -> None:
        model.close()
        self._manager.on_unloaded(servable)
        LOGGER.info("version %d of %s is unloaded", servable.version, self._name)
        self._notify(UNLOADED, servable.version, None)

    def _notify(self, event: str, version: int, detail: Any) -> None:
        for listener in self._listeners:
            listener(event, self._name, version, detail)
