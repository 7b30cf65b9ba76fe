"""The versions of one model: which lie on disk, which are wanted, which are loaded, and swapping them under load.

Knows nothing of TensorFlow: what loads a version is passed in. As in TensorFlow Serving a new version is loaded before the old
one goes, calls under way keep the version they began with, and a version that does not load leaves the old one in place. Unlike
there, every version loads in a thread of its own, so that a half-written one holds up no other, and a failed one is tried again
as soon as its files change.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from serving.status import Code, StatusError

LOGGER = logging.getLogger("bitsum.serving")

START = "START"
LOADING = "LOADING"
AVAILABLE = "AVAILABLE"
UNLOADING = "UNLOADING"
END = "END"

# Which of the versions on disk should be loaded.
Policy = Callable[[list[int]], set[int]]


class Model(Protocol):
    """What a loader makes."""

    def close(self) -> None: ...


@dataclasses.dataclass
class _Entry:
    """What is known of a version; changed under the lock of its Versions only."""

    version: int
    path: pathlib.Path
    state: str = START
    error: StatusError | None = None
    model: Model | None = None
    users: int = 0
    attempts: int = 0
    failed_at: float = 0.0
    failed_files: tuple = ()


def latest(count: int) -> Policy:
    """The policy of the `count` highest versions."""
    return lambda versions: set(sorted(versions)[-count:])


class Versions:
    """The versions of the model in `base_path`/<integer>/, kept in step with the disk by `poll`.

    Args:
        load: makes the model of a version's folder; raises StatusError.
        policy: which versions on disk are wanted.
        max_retries: how often a load that failed is tried again with unchanged files.
        retry_interval: seconds between two such tries.
    """

    def __init__(
        self,
        name: str,
        base_path: pathlib.Path,
        load: Callable[[pathlib.Path], Model],
        policy: Policy = latest(1),
        max_retries: int = 5,
        retry_interval: float = 60.0,
    ):
        self.name = name
        self.base_path = base_path
        self._load = load
        self._policy = policy
        self._max_retries = max_retries
        self._retry_interval = retry_interval
        self._entries: dict[int, _Entry] = {}
        self._wanted: set[int] = set()
        self._closed = False
        self._changed = threading.Condition()

    def poll(self) -> None:
        """Look at the disk once: begin to load what is wanted, unload what is not."""
        on_disk = on_disk_versions(self.base_path)
        if on_disk is None:
            return
        with self._changed:
            for version, path in on_disk.items():
                entry = self._entries.setdefault(version, _Entry(version, path))
                entry.path = path
            self._retry(on_disk)
            usable = [version for version in on_disk if not self._entries[version].error]
            # With nothing but versions that do not load, what is served stays.
            if usable or not on_disk:
                self._wanted = self._policy(usable)
            for version in sorted(self._wanted):
                self._begin_load(self._entries[version])
            self._unload_unwanted()

    def status(self) -> list[tuple[int, str, StatusError | None]]:
        """(version, state, why it failed) of each version ever touched, newest first."""
        with self._changed:
            entries = sorted(self._entries.values(), key=lambda entry: -entry.version)
            return [(entry.version, entry.state, entry.error) for entry in entries if entry.attempts]

    def wait_available(self, timeout: float | None, stopped: Callable[[], bool] = lambda: False) -> int | None:
        """The newest version available, waiting for one for `timeout` seconds (None for ever) while `stopped` is false; else None.

        Raises:
            StatusError: with a timeout, when nothing is available and every load has failed.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not stopped() and (end is None or time.monotonic() < end):
                available = self._available()
                if available:
                    return max(available)
                failed = [entry for entry in self._entries.values() if entry.error]
                if failed and end is not None and not any(entry.state in (START, LOADING) for entry in self._entries.values()):
                    raise max(failed, key=lambda entry: entry.version).error
                self._changed.wait(0.1)
        return None

    @contextlib.contextmanager
    def use(self, version: int | None) -> Iterator[tuple[int, Model]]:
        """(version, model) of `version`, None for the newest; it stays loaded while the context lasts.

        Raises:
            StatusError: that version is not available.
        """
        with self._changed:
            available = self._available()
            chosen = max(available, default=None) if version is None else version
            if chosen not in available:
                wanted = f"Latest({self.name})" if version is None else f"Specific({self.name}, {version})"
                raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
            entry = self._entries[chosen]
            entry.users += 1
        try:
            yield chosen, entry.model
        finally:
            with self._changed:
                entry.users -= 1
                self._finish_unload(entry)

    def close(self) -> None:
        """Unload everything; runs that are still under way are cancelled."""
        with self._changed:
            self._closed = True
            models = [entry.model for entry in self._entries.values() if entry.model]
        for model in models:
            model.close()

    def _available(self) -> list[int]:
        return [entry.version for entry in self._entries.values() if entry.state == AVAILABLE]

    def _retry(self, on_disk: dict[int, pathlib.Path]) -> None:
        """Forget the failures that deserve another try, of versions which the policy would choose."""
        for version in self._policy(list(on_disk)):
            entry = self._entries[version]
            if not entry.error:
                continue
            due = entry.attempts <= self._max_retries and time.monotonic() >= entry.failed_at + self._retry_interval
            if due or _files(entry.path) != entry.failed_files:
                entry.state, entry.error = START, None

    def _begin_load(self, entry: _Entry) -> None:
        if entry.state not in (START, END) or entry.error or self._closed:
            return
        entry.state = LOADING
        entry.attempts += 1
        threading.Thread(target=self._run_load, args=(entry,), name=f"load-{self.name}-{entry.version}", daemon=True).start()

    def _run_load(self, entry: _Entry) -> None:
        files = _files(entry.path)
        model, error = None, None
        try:
            model = self._load(entry.path)
        except StatusError as failure:
            error = failure
        except Exception as failure:
            # A version that fails in an unforeseen way must not stay in LOADING for ever.
            error = StatusError(Code.INTERNAL, f"{type(failure).__name__}: {failure}")
        with self._changed:
            if self._closed and model:
                model.close()
                return
            entry.model, entry.error = model, error
            entry.state = END if error else AVAILABLE
            entry.failed_at, entry.failed_files = time.monotonic(), files
            if error:
                LOGGER.warning("version %d of %s does not load: %s", entry.version, self.name, str(error).partition("\n")[0])
            else:
                entry.attempts = 1
                LOGGER.info("version %d of %s is available", entry.version, self.name)
            self._unload_unwanted()
            self._changed.notify_all()

    def _unload_unwanted(self) -> None:
        if any(self._entries[version].state != AVAILABLE for version in self._wanted):
            return
        for entry in self._entries.values():
            if entry.state == AVAILABLE and entry.version not in self._wanted:
                entry.state = UNLOADING
                self._finish_unload(entry)

    def _finish_unload(self, entry: _Entry) -> None:
        if entry.state == UNLOADING and not entry.users:
            entry.model.close()
            entry.model, entry.state = None, END
            LOGGER.info("version %d of %s is unloaded", entry.version, self.name)


def on_disk_versions(base_path: pathlib.Path) -> dict[int, pathlib.Path] | None:
    """The versions in `base_path` by number, names that are no integers left out; None where the folder cannot be read."""
    try:
        names = sorted(os.listdir(base_path))
    except OSError:
        return None
    return {int(name): base_path / name for name in names if name.isascii() and name.isdigit() and int(name) < 2**63}


def _files(path: pathlib.Path) -> tuple:
    """Names, sizes and times of the files below `path`: differs when something was written there."""
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(folder, name))
                found.append((os.path.join(folder, name), status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
