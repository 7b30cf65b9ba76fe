"""The folder in which a run keeps everything: made on first use, recognised by a marker, held by one run at a time."""

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Callable, Iterator

from components.errors import BitsumError

MARKER = ".bitsum"
# Written by the scheduler (airflow/dags/bitsum_turn.py) from the first node of a run to the last.
TURN = pathlib.PurePath("schedule", "turn.json")
_ASK_AGAIN_SECONDS = 0.5
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


@contextlib.contextmanager
def held(root: pathlib.Path, waiting: Callable[[str], None], shared: bool = False) -> Iterator[None]:
    """Hold the folder: a second run waits until the first is done, and `waiting` is told so once.

    Those who hold it `shared`, the nodes of a scheduled run, do not wait for one another; everybody else waits for all of that run.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    told = False

    def tell(line: str) -> None:
        nonlocal told
        if not told:
            waiting(line)
        told = True

    with open(root / MARKER, "r+") as file:
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"another run works in {root}: waiting until it is done")
                fcntl.flock(file, kind)
            if shared or not (root / TURN).exists():
                break
            fcntl.flock(file, fcntl.LOCK_UN)
            tell(f"a scheduled run has the turn: waiting until it is over; if its Airflow is no more, remove {root / TURN}")
            time.sleep(_ASK_AGAIN_SECONDS)
        yield
