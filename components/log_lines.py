"""Writes log records as lines of a stream, with escaped names (`components.printable`)."""

import logging
from typing import TextIO

from components.printable import printable, say


class LineHandler(logging.Handler):
    """Writes each record to `stream`, followed by the lines of its traceback.

    Args:
        line, time: formats of logging.Formatter.
        newline: replacement for a line break in a message.
    """

    def __init__(self, stream: TextIO, line: str, time: str | None = None, newline: str = r"\n"):
        super().__init__()
        self._stream = stream
        self.setFormatter(_Formatter(line, time, newline))

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`."""
        try:
            say(*self.format(record).split("\n"), stream=self._stream)
        except Exception:
            self.handleError(record)


class _Formatter(logging.Formatter):
    def __init__(self, line: str, time: str | None, newline: str):
        super().__init__(line, time)
        self._newline = newline

    def formatMessage(self, record: logging.LogRecord) -> str:
        return self._newline.join(map(printable, super().formatMessage(record).split("\n")))
