"""What is known of one version of a model, and holding it while a request runs."""

import dataclasses
import pathlib
from typing import Protocol

from serving.status import Code, StatusError

# As GetModelStatus has them.
START = "START"
LOADING = "LOADING"
AVAILABLE = "AVAILABLE"
UNLOADING = "UNLOADING"
END = "END"


class Model(Protocol):
    """What a loader makes."""

    def close(self) -> None: ...


@dataclasses.dataclass
class Entry:
    """A version; changed under the lock of its Versions only.

    `failure` is why the last load failed, also while there are tries left and the state says LOADING; `error` is what
    is told. `failed_files` are the files as they were then, and `wake` says that they have changed. `users` counts the
    requests that run.
    """

    version: int
    path: pathlib.Path
    state: str = END
    error: StatusError | None = None
    failure: StatusError | None = None
    failed_files: tuple = ()
    wake: bool = False
    model: Model | None = None
    users: int = 0


class Lender(Protocol):
    """What lends an entry, and gets it back."""

    def take(self, version: int | None) -> Entry: ...

    def give_back(self, entry: Entry) -> None: ...


class Use:
    """Holds a version for as long as the context lasts; a class, since every request enters one."""

    __slots__ = ("_entry", "_version", "_versions")

    def __init__(self, versions: Lender, version: int | None):
        self._versions = versions
        self._version = version

    def __enter__(self) -> tuple[int, Model]:
        entry = self._entry = self._versions.take(self._version)
        return entry.version, entry.model

    def __exit__(self, *_) -> None:
        self._versions.give_back(self._entry)


def not_found(name: str, version: int | None) -> StatusError:
    """The answer to a request for a version, None for the newest, that is not available."""
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return StatusError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
