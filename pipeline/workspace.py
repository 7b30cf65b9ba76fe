"""The folder that holds everything of a pipeline: created on first use, recognised by a marker file."""

import os
import pathlib

from components import atomic
from components.errors import BitsumError

MARKER = ".bitsum"
_MARKER_TEXT = "This folder belongs to bitsum: artifacts, metadata, logs and served models.\n"


def prepare(root: pathlib.Path) -> pathlib.Path:
    """Create the folder `root`, or check that it is ours.

    Raises:
        BitsumError: it holds other files, or cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not (root / MARKER).exists():
            strangers = sorted({entry.name for entry in root.iterdir()} - atomic.OF_THE_FILE_SYSTEM)
            if strangers:
                raise BitsumError(
                    f"pipeline.root = {root} holds {len(strangers)} files that are not bitsum's, "
                    f"the first being {strangers[0]!r}: choose an empty folder"
                )
            (root / MARKER).write_text(_MARKER_TEXT)
        for name in ("logs", "tmp"):
            (root / name).mkdir(exist_ok=True)
        if not os.access(root, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        advice = "; run this as a user who may write there" if isinstance(error, PermissionError) else ""
        raise BitsumError(f"cannot use pipeline.root = {root}: {error.strerror or error}{advice}") from error
    return root
