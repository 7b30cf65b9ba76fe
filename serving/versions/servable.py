"""One version of a model, and the handle that keeps it loaded while a request runs."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from serving.runtime.model import Model
from serving.status import Code, StatusError

if TYPE_CHECKING:
    from serving.versions.version_manager import VersionManager

# The states of GetModelStatus.
START = "START"
LOADING = "LOADING"
AVAILABLE = "AVAILABLE"
UNLOADING = "UNLOADING"
END = "END"


@dataclasses.dataclass
class Servable:
    """One version of a model; changed only under the lock of its VersionManager.

    `failure` is the error of the last load, also while retries are left and the state is LOADING; `error` is the one
    that clients see. `failed_files` are the files that the failed load found, and `files_changed` says that they have
    changed since. `handles` counts the requests in progress.
    """

    version: int
    path: pathlib.Path
    state: str = END
    error: StatusError | None = None
    failure: StatusError | None = None
    failed_files: tuple = ()
    files_changed: bool = False
    model: Model | None = None
    handles: int = 0


class ServableHandle:
    """A context of (version, model) that keeps the version loaded; a class, because every request enters one."""

    __slots__ = ("_manager", "_servable", "_version")

    def __init__(self, manager: "VersionManager", version: int | None):
        self._manager = manager
        self._version = version

    def __enter__(self) -> tuple[int, Model]:
        self._servable, model = self._manager.acquire(self._version)
        return self._servable.version, model

    def __exit__(self, *_: object) -> None:
        self._manager.release(self._servable)


def not_found(name: str, version: int | None) -> StatusError:
    """The answer to a request for a version, None for the newest, that is not available."""
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return StatusError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
