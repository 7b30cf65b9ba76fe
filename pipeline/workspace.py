"""The folder in which a run keeps everything: made on first use, recognised by a marker."""

import os
import pathlib

from components.errors import BitsumError

MARKER = ".bitsum"
_MARKER_TEXT = "This folder belongs to bitsum: artifacts, metadata, logs and served models.\n"


def prepare(root: pathlib.Path) -> pathlib.Path:
    """Make the folder `root`, or look that it is one of ours.

    Raises:
        BitsumError: it holds somebody else's files, or cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not (root / MARKER).exists():
            strangers = sorted(entry.name for entry in root.iterdir())
            if strangers:
                raise BitsumError(
                    f"pipeline.root = {root} holds {len(strangers)} files that are not bitsum's, the first being {strangers[0]!r}: "
                    "choose an empty folder"
                )
            (root / MARKER).write_text(_MARKER_TEXT)
        for name in ("logs", "tmp"):
            (root / name).mkdir(exist_ok=True)
        if not os.access(root, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise BitsumError(f"cannot use pipeline.root = {root}: {error.strerror or error}") from error
    return root
