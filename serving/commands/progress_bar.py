"""A line on the terminal that says how far long work is, while a command asks a model server; elsewhere nothing."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

from components.progress import LOGGER, shown

_BAR = 40
_REDRAW_SECONDS = 0.1


@contextlib.contextmanager
def progress_bar() -> Iterator[None]:
    """Draws the reports of components.progress on a terminal's standard error while the context lasts, unless
    progress is hidden."""
    if not (shown() and sys.stderr.isatty()):
        yield
        return
    logger, bar = logging.getLogger(LOGGER), _Bar(logging.INFO)
    level = logger.level
    logger.addHandler(bar)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(bar)
        logger.setLevel(level)
        clear()


def clear() -> None:
    """Take the line off a terminal, before something else is written there."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


class _Bar(logging.Handler):
    _drawn = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Take a report of `step`, and `of` where the end is known; of `unit`, where those are not bits, and of errors
        in units u."""
        numbers = record.numbers
        if time.monotonic() - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = time.monotonic()
        done, end = numbers["step"], numbers.get("of")
        filled = _BAR * done // end if end else 0
        text = f"[{'#' * filled}{'.' * (_BAR - filled)}] {done:,} of {end:,}" if end else f"{done:,}"
        worst = ", ".join(
            f"{name.removesuffix('_u')} {number:.2f} u" for name, number in numbers.items() if name.endswith("_u")
        )
        sys.stderr.write(f"\r{text} {numbers.get('unit', 'bits')}{worst and f', worst: {worst}'}\x1b[K")
        sys.stderr.flush()
