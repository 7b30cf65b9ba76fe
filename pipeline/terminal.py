"""What a person sees while the pipeline works: the stage, the time it has taken, real numbers; a line per stage when
done.

On a terminal one line is redrawn in place; elsewhere a line is written now and then, so that a log of it stays short.
"""

import logging
import threading
import time
from typing import TextIO

from components.printable import printable, say
from components.progress import LOGGER, shown

_REDRAW_SECONDS = 0.2


class Progress(logging.Handler):
    """Listens to the steps' reports and draws them on `stream`.

    Where progress is hidden (components.progress) stages are not drawn; warnings and the lines that stay are.
    Use as a context manager, so that the line that is redrawn is always finished and the listener taken off again.
    """

    def __init__(self, stream: TextIO, interval: float):
        """`interval`: least seconds between two lines about one stage where `stream` is no terminal."""
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

    def __exit__(self, *unused) -> None:
        self._ended.set()
        logger = logging.getLogger(LOGGER)
        logger.removeHandler(self)
        logger.setLevel(self._level)
        logger.propagate = True
        if self._terminal:
            self._ticker.join()
            self._erase()

    def begin(self, stage: str) -> None:
        """A stage starts."""
        with self._mutex:
            self._stage, self._detail = stage, ""
            self._began = time.monotonic()
            self._written = self._began
            self._draw()

    def end(self, note: str) -> None:
        """The stage is done; `note` says with what result."""
        with self._mutex:
            if self._shown:
                self.line(f"  {self._stage:<15} {time.monotonic() - self._began:6.1f} s   {note}")
            self._stage = ""

    def line(self, text: str) -> None:
        """A line that stays."""
        with self._mutex:
            self._erase()
            say(text, stream=self._stream)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a step's report, or its warning."""
        with self._mutex:
            if record.levelno >= logging.WARNING:
                self.line(f"    {self._stage}: {record.getMessage()}")
                return
            self._detail = described(record.numbers)
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
            self._stream.write(
                printable(f"  {self._stage:<15} {time.monotonic() - self._began:6.1f} s   {self._detail}")[:119]
            )
            self._stream.flush()

    def _erase(self) -> None:
        if self._terminal:
            self._stream.write("\r\x1b[K")


def described(numbers: dict) -> str:
    """The numbers of a report in words: {"step": 3, "of": 10, "loss": 0.5} is "3 of 10, loss 0.5"."""
    rest = {name: value for name, value in numbers.items() if name not in ("step", "of")}
    words = [
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in rest.items()
    ]
    if "step" in numbers:
        words.insert(0, f"{numbers['step']} of {numbers['of']}" if "of" in numbers else f"{numbers['step']}")
    return ", ".join(words)
