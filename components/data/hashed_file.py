"""A file that is hashed as it is read: the hash is that of the content that was used, whatever happens to the file."""

import hashlib
import io
import pathlib
from typing import Any

from components import regular_files

_BLOCK = 1 << 20


class HashedFile(io.RawIOBase):
    """The bytes of a file, unbuffered.

    Raises:
        OSError: it cannot be opened, is not a regular file, or cannot be read.
    """

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self._file, self._digest = regular_files.opened(path), hashlib.sha256()

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read up to the size of `buffer` into it; returns the number of bytes, 0 at the end."""
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._digest.update(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def sha256(self) -> str:
        """The SHA-256 of the whole file, hexadecimal; reads the rest of it."""
        while self.read(_BLOCK):
            pass
        return self._digest.hexdigest()
