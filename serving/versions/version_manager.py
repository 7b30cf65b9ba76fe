"""Keeps the versions of one model in step with its folder, and swaps them under load.

Independent of TensorFlow: the caller passes in the function that loads a version. Follows TensorFlow Serving's
AvailabilityPreservingPolicy: the policy chooses the *aspired* versions among those on disk; the others are unloaded
once an aspired version is available, or when none is aspired any more; a call keeps the version it began with; a
failed load is retried after an interval, in the state LOADING, and ends with its error. Differs from TensorFlow
Serving:

- Each version loads in a thread of its own, so that a half-written version delays no other.
- A failed version is loaded again as soon as its files change, even after its last retry.
- If no aspired version loads and none is served, the policy's next choice is loaded as a fallback.
"""

import contextlib
import pathlib
import threading
from collections.abc import Callable, Collection

from serving.runtime.model import Model
from serving.status import Code, StatusError
from serving.versions.loader import LOGGER, Listener, Loader, LoadOptions
from serving.versions.servable import AVAILABLE, END, LOADING, START, UNLOADING, Servable, ServableHandle, not_found
from serving.versions.version_directory import files, on_disk_versions

# The versions to load, of those on disk.
Policy = Callable[[Collection[int]], set[int]]


class VersionManager:
    """The versions of model `name`: `follow` sets folder and policy, `poll` loads and unloads accordingly.

    Args:
        load: makes the model from a version's folder; raises StatusError. changed: the lock of all states, notified of
        every change; models that are awaited together share it. slots: held during each load. listeners: called for
        each event, without the lock.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[pathlib.Path], Model],
        options: LoadOptions,
        changed: threading.Condition | None = None,
        slots: contextlib.AbstractContextManager | None = None,
        listeners: Collection[Listener] = (),
    ):
        self.name = name
        self._loader = Loader(self, load, options, slots or contextlib.nullcontext(), listeners)
        self._retry_interval = max(0.0, options.retry_interval)
        self._changed = changed or threading.Condition()
        self._servables: dict[int, Servable] = {}
        self._base_path: pathlib.Path | None = None
        self._policy: Policy = set
        self._on_disk: dict[int, pathlib.Path] = {}
        self._aspired: set[int] = set()
        self._fallback: int | None = None
        self._newest: Servable | None = None
        self._unreadable = False
        self._closed = False

    def follow(self, base_path: pathlib.Path, policy: Policy) -> None:
        """From the next poll on, keep loaded the versions in `base_path`/<integer>/ that `policy` chooses."""
        with self._changed:
            self._base_path, self._policy = base_path, policy

    def leave(self) -> None:
        """Unload everything and follow no folder; the versions stay listed as ended."""
        with self._changed:
            self._base_path, self._on_disk, self._aspired, self._fallback = None, {}, set(), None
            self._retire()
            self._changed.notify_all()

    def poll(self) -> None:
        """Look at the disk once: start to load the aspired versions, unload the others. An unreadable folder changes
        nothing."""
        with self._changed:
            base_path = self._base_path
            failed = [servable for servable in self._servables.values() if servable.failure]
        if base_path is None:
            return
        on_disk = on_disk_versions(base_path)
        touched = {servable.version for servable in failed if files(servable.path) != servable.failed_files}
        with self._changed:
            if self._closed or base_path != self._base_path:
                return
            if on_disk is None and not self._unreadable and self._newest:
                LOGGER.warning("cannot read the folder %s of model %s; loaded versions stay", base_path, self.name)
            self._unreadable = on_disk is None
            if on_disk is not None:
                self._aspire(on_disk, touched)

    def awaited(self) -> str:
        """What the model waits for if it has no version to load; else empty."""
        with self._changed:
            if self._aspired or self._newest:
                return ""
            base_path = self._base_path
        what = "a folder that can be read" if self._unreadable else "a version that its policy chooses"
        return f"model {self.name} waits for {what} at {base_path}"

    def status(self) -> list[tuple[int, str, StatusError | None]]:
        """(version, state, error) of each version that was ever aspired, newest first."""
        with self._changed:
            newest_first = sorted(self._servables.items(), reverse=True)
            return [(version, servable.state, servable.error) for version, servable in newest_first]

    def state(self, version: int) -> str | None:
        """The state of `version`; None if it was never aspired."""
        servable = self._servables.get(version)
        return servable.state if servable else None

    def folder(self, version: int) -> pathlib.Path:
        """The folder of a version that was once aspired."""
        return self._servables[version].path

    def newest(self) -> int | None:
        """The highest available version."""
        servable = self._newest
        return servable.version if servable else None

    def tried(self, version: int) -> bool:
        """Whether the first try to load `version` is over; true for a version that was never aspired."""
        servable = self._servables.get(version)
        return servable is None or servable.failure is not None or servable.state not in (START, LOADING)

    def failures(self, early: bool, with_fallback: bool = True) -> list[tuple[int, StatusError]]:
        """(version, error) of the aspired versions, newest first, if all of them failed and none is served; else empty.

        Args:
            early: whether one failure of a version is enough, or its retries must be used up.
            with_fallback: whether the fallback must have failed too.
        """
        with self._changed:
            aspired = [self._servables[version] for version in sorted(self._aspired, reverse=True)]
            others = [servable for servable in self._servables.values() if with_fallback and _in_use(servable)]
            if any(not servable.failure or not (early or servable.state == END) for servable in (*aspired, *others)):
                return []
            return [(servable.version, servable.failure) for servable in aspired if servable.failure]

    def handle(self, version: int | None) -> ServableHandle:
        """A context of (version, model) of `version`, None for the newest, which stays loaded during the context.

        Entering it raises StatusError if the version is not available.
        """
        return ServableHandle(self, version)

    def acquire(self, version: int | None) -> tuple[Servable, Model]:
        """An available version, None for the newest, and its model: it stays loaded until it is released.

        Raises:
            StatusError: the version is not available.
        """
        with self._changed:
            servable = self._newest if version is None else self._servables.get(version)
            if servable is None or servable.state != AVAILABLE or servable.model is None:
                raise not_found(self.name, version)
            servable.handles += 1
            return servable, servable.model

    def release(self, servable: Servable) -> None:
        """End an `acquire`. The last release of a retired version unloads it."""
        with self._changed:
            servable.handles -= 1
            if servable.state == UNLOADING:
                self._unload_unused(servable)

    def close(self) -> None:
        """Unload everything; runs in progress are cancelled."""
        with self._changed:
            self._closed, self._newest = True, None
            models = [servable.model for servable in self._servables.values() if servable.model]
            for servable in self._servables.values():
                servable.model, servable.state = None, END
            self._changed.notify_all()
        for model in models:
            model.close()

    def wait_for_loads(self, end: float) -> None:
        """After `close`: wait for the loads in progress until the time `end` of time.monotonic."""
        self._loader.wait(end)

    def on_load_started(self, servable: Servable) -> None:
        """The Loader begins to load `servable`."""
        with self._changed:
            servable.state = LOADING

    def on_loaded(self, servable: Servable, model: Model) -> bool:
        """Serve `model`; false if its version is no longer wanted."""
        with self._changed:
            servable.failure = None
            wanted = self._wanted(servable)
            if wanted:
                servable.model, servable.state = model, AVAILABLE
                self._retire()
            else:
                servable.state, servable.error = END, StatusError(Code.CANCELLED, "Loading of servable cancelled")
            self._changed.notify_all()
            return wanted

    def on_load_failed(self, servable: Servable, failure: StatusError, loaded_files: tuple, retries: int) -> bool:
        """A load of `loaded_files` failed: wait for the next try; false if there is none."""
        with self._changed:
            servable.failure, servable.failed_files, servable.files_changed = failure, loaded_files, False
            self._load_fallback()
            self._changed.notify_all()
            if retries > 0 and self._wanted(servable):
                self._changed.wait_for(
                    lambda: self._closed or servable.files_changed or self._base_path is None, self._retry_interval
                )
                if self._wanted(servable):
                    return True
            servable.state, servable.error = END, servable.failure
            self._changed.notify_all()
            return False

    def on_unloaded(self, servable: Servable) -> None:
        """The model of `servable` is closed."""
        with self._changed:
            servable.state = END
            self._changed.notify_all()

    def _aspire(self, on_disk: dict[int, pathlib.Path], touched: set[int]) -> None:
        before, self._on_disk, self._aspired = self._aspired, on_disk, self._policy(on_disk)
        for version in sorted(self._aspired, reverse=True):
            servable = self._servables.setdefault(version, Servable(version, on_disk[version]))
            again = version in touched or version not in before
            if servable.state == END and (again or not servable.failure):
                self._start_load(servable)
            elif version in touched:
                servable.files_changed = True
                self._changed.notify_all()
        self._load_fallback(touched)
        self._retire()

    def _load_fallback(self, touched: Collection[int] = ()) -> None:
        """Load the policy's next choice if all of its choices failed and nothing is served."""
        in_use = any(_in_use(servable) and not servable.failure for servable in self._servables.values())
        if in_use or not self._aspired or self._closed:
            return
        failed = {version for version, servable in self._servables.items() if servable.failure} - {*touched}
        self._fallback = max(self._policy(self._on_disk.keys() - failed - self._aspired), default=None)
        if self._fallback is not None:
            path = self._on_disk[self._fallback]
            self._start_load(self._servables.setdefault(self._fallback, Servable(self._fallback, path)))

    def _start_load(self, servable: Servable) -> None:
        if servable.state != END or self._closed:
            return
        servable.path = self._on_disk[servable.version]
        servable.state, servable.error, servable.failure, servable.files_changed = START, None, None, False
        self._loader.start_load(servable)

    def _wanted(self, servable: Servable) -> bool:
        return not self._closed and (servable.version in self._aspired or servable.version == self._fallback)

    def _retire(self) -> None:
        """Unload what is not aspired, except the highest such version while no aspired version is available."""
        available = sorted(version for version, servable in self._servables.items() if servable.state == AVAILABLE)
        unaspired = [version for version in available if version not in self._aspired]
        if self._aspired and len(unaspired) == len(available):
            unaspired = unaspired[:-1]
        for version in unaspired:
            self._servables[version].state = UNLOADING
            self._unload_unused(self._servables[version])
        kept = [version for version in available if version not in unaspired]
        self._newest = self._servables[kept[-1]] if kept else None

    def _unload_unused(self, servable: Servable) -> None:
        if servable.state == UNLOADING and not servable.handles and servable.model:
            model, servable.model = servable.model, None
            self._loader.start_unload(servable, model)


def _in_use(servable: Servable) -> bool:
    return servable.state in (START, LOADING, AVAILABLE)
