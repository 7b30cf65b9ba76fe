"""The versions of one model: which lie on disk, which are wanted, which are loaded, and swapping them under load.

Knows nothing of TensorFlow: what loads a version is passed in. The rules are those of TensorFlow Serving with its
policy of preserving availability: the versions that a policy chooses of those on disk are *aspired*; others go once an
aspired one is available, or when nothing is aspired any more; calls under way keep the version they began with; a
version that does not load is tried again after an interval, LOADING all the while, and then ends with its error. Unlike
there

- each version loads in a thread of its own, so that a half-written one holds up no other;
- a version that failed is tried again as soon as its files change, also when it has ended;
- where none of the aspired versions loads and nothing is served, the next one that the policy would choose is.
"""

import contextlib
import dataclasses
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from serving.status import Code, StatusError, unforeseen
from serving.versions.servable import AVAILABLE, END, LOADING, START, UNLOADING, Entry, Model, Use, not_found
from serving.versions.version_directory import files, on_disk_versions

LOGGER = logging.getLogger("bitsum.serving")

LOAD_STARTED = "load_started"
LOAD_SUCCEEDED = "load_succeeded"
LOAD_FAILED = "load_failed"
UNLOADED = "unloaded"

# Which of the versions on disk should be loaded.
Policy = Callable[[Collection[int]], set[int]]
# Called with the kind of event, the model's name, the version, and the seconds of a load, or the StatusError of a
# failed one.
Listener = Callable[[str, str, int, Any], None]


@dataclasses.dataclass(frozen=True)
class Loading:
    """How versions are loaded.

    max_retries: how often a load that failed is tried again while the files stay as they are.
    retry_interval: seconds between two such tries; a negative one does not wait.
    threads: loads under way at the same time, of all models; 0 for any number.
    """

    max_retries: int = 5
    retry_interval: float = 60.0
    threads: int = 0


class Versions:
    """The versions of model `name`, kept in step with the disk by `poll`, once `follow` has said where and which.

    Args:
        load: makes the model of a version's folder; raises StatusError. changed: notified of every change of state, and
        the lock of all states; models that are waited for together share it. slots: taken for the time of a load.
        listeners: told what happens, outside of the lock.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[pathlib.Path], Model],
        loading: Loading = Loading(),
        changed: threading.Condition | None = None,
        slots: contextlib.AbstractContextManager | None = None,
        listeners: Collection[Listener] = (),
    ):
        self.name = name
        self._load = load
        self._loading = loading
        self._changed = changed or threading.Condition()
        self._slots = slots or contextlib.nullcontext()
        self._listeners = listeners
        self._entries: dict[int, Entry] = {}
        self._base_path: pathlib.Path | None = None
        self._policy: Policy = set
        self._on_disk: dict[int, pathlib.Path] = {}
        self._aspired: set[int] = set()
        self._rescue: int | None = None
        self._newest: Entry | None = None
        self._unreadable = False
        self._closed = False

    def follow(self, base_path: pathlib.Path, policy: Policy) -> None:
        """Keep the versions in `base_path`/<integer>/ that `policy` chooses loaded, from the next poll on."""
        with self._changed:
            self._base_path, self._policy = base_path, policy

    def leave(self) -> None:
        """Unload everything and follow no folder any more; the versions stay listed as ended."""
        with self._changed:
            self._base_path, self._on_disk, self._aspired, self._rescue = None, {}, set(), None
            self._retire()
            self._changed.notify_all()

    def poll(self) -> None:
        """Look at the disk once: begin to load what is aspired, unload what is not. An unreadable folder changes
        nothing."""
        with self._changed:
            base_path = self._base_path
            failed = [entry for entry in self._entries.values() if entry.failure]
        if base_path is None:
            return
        on_disk = on_disk_versions(base_path)
        touched = {entry.version for entry in failed if files(entry.path) != entry.failed_files}
        with self._changed:
            if self._closed or base_path != self._base_path:
                return
            self._say_unreadable(on_disk is None)
            if on_disk is not None:
                self._aspire(on_disk, touched)

    def status(self) -> list[tuple[int, str, StatusError | None]]:
        """(version, state, why it failed) of each version that was ever aspired, newest first."""
        with self._changed:
            return [
                (entry.version, entry.state, entry.error) for _, entry in sorted(self._entries.items(), reverse=True)
            ]

    def state(self, version: int) -> str | None:
        """The state of `version`, None where it was never aspired."""
        entry = self._entries.get(version)
        return entry.state if entry else None

    def folder(self, version: int) -> pathlib.Path:
        """The folder of a version that was aspired once."""
        return self._entries[version].path

    def newest(self) -> int | None:
        """The highest version available."""
        entry = self._newest
        return entry.version if entry else None

    def tried(self, version: int) -> bool:
        """Whether it is decided if `version` loads, for now: it does, it has failed, or it is not even there."""
        entry = self._entries.get(version)
        return entry is None or entry.failure is not None or entry.state not in (START, LOADING)

    def failures(self, early: bool, rescued: bool = True) -> list[tuple[int, StatusError]]:
        """(version, why) of the aspired versions, newest first, where all of them failed and nothing is served; else
        nothing.

        Args:
            early: whether one failure is enough, or all tries must be used up.
            rescued: whether to wait for what is loaded in the place of the aspired versions.
        """
        with self._changed:
            entries = [self._entries[version] for version in sorted(self._aspired, reverse=True)]
            others = (
                [entry for entry in self._entries.values() if entry.state in (START, LOADING, AVAILABLE)]
                if rescued
                else []
            )
            if any(not entry.failure or not (early or entry.state == END) for entry in (*entries, *others)):
                return []
            return [(entry.version, entry.failure) for entry in entries]

    def use(self, version: int | None) -> "Use":
        """A context of (version, model) of `version`, None for the newest; it stays loaded while the context lasts.

        Entering it raises StatusError where that version is not available.
        """
        return Use(self, version)

    def take(self, version: int | None) -> Entry:
        """The entry of an available version, which stays loaded until it is given back. Raises: StatusError, it is not
        available."""
        with self._changed:
            entry = self._newest if version is None else self._entries.get(version)
            if entry is None or entry.state != AVAILABLE:
                raise not_found(self.name, version)
            entry.users += 1
            return entry

    def give_back(self, entry: Entry) -> None:
        """The last one out of a version that is not wanted any more has it unloaded."""
        with self._changed:
            entry.users -= 1
            if entry.state == UNLOADING:
                self._unload_unused(entry)

    def close(self) -> None:
        """Unload everything; runs that are still under way are cancelled."""
        with self._changed:
            self._closed, self._newest = True, None
            models = [entry.model for entry in self._entries.values() if entry.model]
            for entry in self._entries.values():
                entry.model, entry.state = None, END
            self._changed.notify_all()
        for model in models:
            model.close()

    def _say_unreadable(self, unreadable: bool) -> None:
        if unreadable and not self._unreadable:
            LOGGER.warning("the folder %s of model %s cannot be read; what is loaded stays", self._base_path, self.name)
        self._unreadable = unreadable

    def _aspire(self, on_disk: dict[int, pathlib.Path], touched: set[int]) -> None:
        before, self._on_disk, self._aspired = self._aspired, on_disk, self._policy(on_disk)
        for version in sorted(self._aspired, reverse=True):
            entry = self._entries.setdefault(version, Entry(version, on_disk[version]))
            again = version in touched or version not in before
            if entry.state == END and (again or not entry.failure):
                self._begin_load(entry)
            elif version in touched:
                entry.wake = True
                self._changed.notify_all()
        self._rescue_service(touched)
        self._retire()

    def _rescue_service(self, touched: Collection[int] = ()) -> None:
        """Load the next version that the policy would choose, where all that it chose failed and nothing is served."""
        in_use = any(
            entry.state in (START, LOADING, AVAILABLE) and not entry.failure for entry in self._entries.values()
        )
        if in_use or not self._aspired or self._closed:
            return
        failed = {entry.version for entry in self._entries.values() if entry.failure and entry.version not in touched}
        self._rescue = max(self._policy(self._on_disk.keys() - failed - self._aspired), default=None)
        if self._rescue is not None:
            self._begin_load(self._entries.setdefault(self._rescue, Entry(self._rescue, self._on_disk[self._rescue])))

    def _begin_load(self, entry: Entry) -> None:
        if entry.state != END or self._closed:
            return
        entry.path = self._on_disk[entry.version]
        entry.state, entry.error, entry.failure, entry.wake = START, None, None, False
        threading.Thread(
            target=self._run_load, args=(entry,), name=f"load-{self.name}-{entry.version}", daemon=True
        ).start()

    def _run_load(self, entry: Entry) -> None:
        retries = self._loading.max_retries
        while True:
            files_before = files(entry.path)
            with self._slots:
                model, failure, seconds = self._try(entry)
            if failure is None:
                self._loaded(entry, model, seconds)
                return
            with self._changed:
                entry.failure, entry.failed_files, entry.wake = failure, files_before, False
                self._rescue_service()
                self._changed.notify_all()
            first_line = str(failure).partition("\n")[0]
            LOGGER.warning("version %d of %s does not load: %s", entry.version, self.name, first_line)
            self._tell(LOAD_FAILED, entry.version, failure)
            if not self._try_again(entry, retries > 0):
                return
            retries = self._loading.max_retries if entry.wake else retries - 1

    def _try(self, entry: Entry) -> tuple[Model | None, StatusError | None, float]:
        """(model, why there is none, seconds)."""
        start = time.monotonic()
        try:
            with self._changed:
                entry.state = LOADING
            self._tell(LOAD_STARTED, entry.version, None)
            return self._load(entry.path), None, time.monotonic() - start
        except StatusError as failure:
            return None, failure, time.monotonic() - start
        except Exception as failure:
            # A version that fails in an unforeseen way must not stay in LOADING for ever.
            return None, unforeseen(failure, Code.INTERNAL), time.monotonic() - start

    def _loaded(self, entry: Entry, model: Model, seconds: float) -> None:
        with self._changed:
            wanted = self._wanted(entry)
            entry.failure = None
            if wanted:
                entry.model, entry.state = model, AVAILABLE
                self._retire()
            else:
                entry.state, entry.error = END, StatusError(Code.CANCELLED, "Loading of servable cancelled")
            self._changed.notify_all()
        if not wanted:
            model.close()
            return
        LOGGER.info("version %d of %s is available", entry.version, self.name)
        self._tell(LOAD_SUCCEEDED, entry.version, seconds)

    def _try_again(self, entry: Entry, left: bool) -> bool:
        """Wait for the next try of a load that failed; false where there is none."""
        with self._changed:
            if left and self._wanted(entry):
                self._changed.wait_for(
                    lambda: self._closed or entry.wake or self._base_path is None,
                    max(0.0, self._loading.retry_interval),
                )
                if self._wanted(entry):
                    return True
            entry.state, entry.error = END, entry.failure
            self._changed.notify_all()
            return False

    def _wanted(self, entry: Entry) -> bool:
        return not self._closed and (entry.version in self._aspired or entry.version == self._rescue)

    def _retire(self) -> None:
        """Unload what is not aspired, but for one version for as long as no aspired one is available."""
        available = sorted(entry.version for entry in self._entries.values() if entry.state == AVAILABLE)
        unaspired = [version for version in available if version not in self._aspired]
        if self._aspired and len(unaspired) == len(available):
            unaspired = unaspired[:-1]
        for version in unaspired:
            entry = self._entries[version]
            entry.state = UNLOADING
            self._unload_unused(entry)
        available = [entry for entry in self._entries.values() if entry.state == AVAILABLE]
        self._newest = max(available, key=lambda entry: entry.version, default=None)

    def _unload_unused(self, entry: Entry) -> None:
        if entry.state == UNLOADING and not entry.users and entry.model:
            model, entry.model = entry.model, None
            # Closing takes long enough that neither the lock nor the last caller should wait for it.
            threading.Thread(
                target=self._unload, args=(entry, model), name=f"unload-{self.name}-{entry.version}"
            ).start()

    def _unload(self, entry: Entry, model: Model) -> None:
        model.close()
        with self._changed:
            entry.state = END
            self._changed.notify_all()
        LOGGER.info("version %d of %s is unloaded", entry.version, self.name)
        self._tell(UNLOADED, entry.version, None)

    def _tell(self, kind: str, version: int, detail: Any) -> None:
        for listener in self._listeners:
            listener(kind, self.name, version, detail)
