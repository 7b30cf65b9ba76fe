"""How a step tells whoever watches what it is doing: one logger, real numbers, no printing.

A step calls `report("train", step=300, of=1000, loss=0.01)`. The command line draws these records on the terminal;
without a listener they cost a function call and go nowhere.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator

from components.printable import say

LOGGER = "bitsum.progress"


def report(stage: str, **numbers) -> None:
    """Tell the listener of `LOGGER` where `stage` stands. `step` and `of`, where given, say how far it is."""
    logging.getLogger(LOGGER).info("%s", stage, extra={"numbers": numbers})


def warn(text: str) -> None:
    """Tell the listener of `LOGGER`, in a line that stays, what a person has to know although the step goes on."""
    logging.getLogger(LOGGER).warning("%s", text)


def note(text: str) -> None:
    """Write a line for a person to standard error, unless progress is hidden."""
    if shown():
        say(text, stream=sys.stderr)


def shown() -> bool:
    """Whether progress is shown: yes, outside of `hidden`."""
    return logging.getLogger(LOGGER).level <= logging.INFO


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Progress is not shown while the context lasts; warnings are."""
    logger = logging.getLogger(LOGGER)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
