"""Progress of steps: a step reports numbers to one logger, and a command shows them.

A step calls `report("train", step=300, of=1000, loss=0.01)`. `Progress` draws these records: on a terminal it redraws
one line in place; elsewhere it writes a line now and then, so that logs stay short. Without a listener a report has no
effect and costs one function call.
"""

import contextlib
import logging
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from components.printable import printable, say

LOGGER = "bitsum.progress"
_REDRAW_SECONDS = 0.2
# Of the longest stage, "readability check".
STAGE_WIDTH = 17


def report(stage: str, **numbers: Any) -> None:
    """Report the progress of `stage` to the listener of `LOGGER`: `step` of `of`, counted in `unit`, and other
    numbers."""
    logging.getLogger(LOGGER).info("%s", stage, extra={"numbers": numbers})


def tell(text: str) -> None:
    """Report what a step did to the listener of `LOGGER`, as a line that stays unless progress is hidden."""
    logging.getLogger(LOGGER).info("%s", text)


def warn(text: str) -> None:
    """Report a warning to the listener of `LOGGER`, as a line that stays. The step continues."""
    logging.getLogger(LOGGER).warning("%s", text)


def note(text: str) -> None:
    """Write a line for the user to standard error, unless progress is hidden."""
    if shown():
        say(text, stream=sys.stderr)


def shown() -> bool:
    """Whether progress is shown: always, except in the context `hidden`."""
    return logging.getLogger(LOGGER).level <= logging.INFO


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Hide progress, but not warnings, while the context lasts."""
    logger = logging.getLogger(LOGGER)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class Progress(logging.Handler):
    """Listens to the steps' reports and draws them on `stream`.

    If progress is hidden, it draws only warnings and the lines that stay. Use it as a context manager, which finishes
    the redrawn line and removes the listener.
    """

    def __init__(self, stream: TextIO, interval: float = math.inf):
        """`interval`: minimum seconds between two lines about one stage if `stream` is not a terminal."""
        super().__init__(logging.INFO)
        self._stream = stream
        self._interval = interval
        self._shown = shown()
        self._terminal = self._shown and stream.isatty()
        self._stage = ""
        self._detail = ""
        self._began = self._written = time.monotonic()
        self._ended = threading.Event()
        self._mutex = threading.RLock()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Progress":
        logger = logging.getLogger(LOGGER)
        logger.addHandler(self)
        self._level = logger.level
        if self._shown:
            logger.setLevel(logging.INFO)
        logger.propagate = False
        if self._terminal:
            self._ticker.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._ended.set()
        logger = logging.getLogger(LOGGER)
        logger.removeHandler(self)
        logger.setLevel(self._level)
        logger.propagate = True
        if self._terminal:
            self._ticker.join()
            self._erase()

    def begin(self, stage: str) -> None:
        """Start a stage."""
        with self._mutex:
            self._stage, self._detail = stage, ""
            self._began = time.monotonic()
            self._written = self._began
            self._draw()

    def end(self, note: str) -> None:
        """End the stage with the result `note`."""
        with self._mutex:
            if self._shown:
                self.line(self._stage_line(note))
            self._stage = ""

    def _stage_line(self, note: str) -> str:
        return f"  {self._stage:<{STAGE_WIDTH}} {time.monotonic() - self._began:6.1f} s   {note}"

    def line(self, text: str) -> None:
        """Write a line that stays."""
        with self.hidden():
            say(text, stream=self._stream)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Erase the redrawn line while something else is written to the terminal."""
        with self._mutex:
            self._erase()
            yield

    def emit(self, record: logging.LogRecord) -> None:
        """Draw a step's report, line or warning. Without a current stage, the step is the stage."""
        with self._mutex:
            if not hasattr(record, "numbers"):
                self.line(f"    {self._stage}: {record.getMessage()}")
                return
            self._stage = self._stage or record.getMessage()
            self._detail = described(vars(record)["numbers"])
            if self._terminal:
                self._draw()
            elif time.monotonic() - self._written >= self._interval:
                self._written = time.monotonic()
                self.line(f"    {self._stage}: {self._detail}, {time.monotonic() - self._began:.0f} s")

    def _tick(self) -> None:
        while not self._ended.wait(_REDRAW_SECONDS):
            with self._mutex:
                self._draw()

    def _draw(self) -> None:
        if self._terminal and self._stage:
            self._erase()
            self._stream.write(printable(self._stage_line(self._detail))[:119])
            self._stream.flush()

    def _erase(self) -> None:
        if self._terminal:
            self._stream.write("\r\x1b[K")


def described(numbers: Mapping[str, Any]) -> str:
    """The numbers of a report as text.

    >>> described({"step": 3, "of": 1000, "unit": "bits", "loss": 0.5})
    '3 of 1,000 bits, loss 0.5'
    """
    words = [
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in numbers.items()
        if name not in ("step", "of", "unit")
    ]
    if "step" in numbers:
        end = f" of {numbers['of']:,}" if "of" in numbers else ""
        words.insert(0, f"{numbers['step']:,}{end} {numbers.get('unit', '')}".rstrip())
    return ", ".join(words)
