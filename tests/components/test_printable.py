"""Foreign text cannot steer a terminal, forge a line or end a command in a traceback."""

import ast
import io
import logging
import sys
import unicodedata

import pytest

from components.errors import Refusal
from components.log_lines import LineHandler
from components.printable import printable, say
from serving.exposition import Family, exposition

pytestmark = pytest.mark.fast

HOSTILE = "a\r\x1b[2K\nproven\x07\x7f\x85\x9b2J\u202e\u2066\u200b\u2028\ufeff\udcff\ud800\U000e0001"
SHOWN = r"a\r\x1b[2K\nproven\x07\x7f\x85\x9b2J\u202e\u2066\u200b\u2028\ufeff\udcff\ud800\U000e0001"
# Unicode's categories of visible characters, and the space.
SEEN = {"L", "M", "N", "P", "S"}


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding)


def written(file: io.TextIOWrapper) -> str:
    file.seek(0)
    return file.buffer.getvalue().decode(file.encoding)


def test_hostile_text_is_one_line_that_shows_what_it_holds():
    assert printable(HOSTILE) == SHOWN
    assert printable("13 + 29 = 42, Ünïcode, 数字, e\u0301, \\n") == "13 + 29 = 42, Ünïcode, 数字, e\u0301, \\n"


def test_only_invisible_characters_are_escaped():
    every = [chr(code) for code in [*range(0x10000), *range(0xE0000, 0xE0200)]]
    unseen = [char for char in every if unicodedata.category(char)[0] not in SEEN and char != " "]
    seen = "".join(set(every) - set(unseen))
    assert printable(seen) == seen
    shown = printable("".join(unseen))
    assert shown.isascii() and shown.count("\\") == len(unseen) > 5000
    assert ast.literal_eval(f"'{shown}'") == "".join(unseen)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_a_line_is_one_line_in_every_encoding(encoding):
    file = stream(encoding)
    say(HOSTILE, "ü 数", "", stream=file)
    first, second, third, end = written(file).split("\n")
    assert first == SHOWN and third == end == ""
    assert second == "ü 数".encode(encoding, "backslashreplace").decode(encoding)


def test_lines_of_a_log_are_escaped_and_tracebacks_keep_theirs():
    for newline, message in ((r"\n", SHOWN), ("\n    ", SHOWN.replace(r"\n", "\n    "))):
        file = stream("ascii")
        handler = LineHandler(file, "%(levelname)s %(message)s", newline=newline)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            handler.emit(logging.LogRecord("x", logging.ERROR, "", 0, "%s", (HOSTILE,), sys.exc_info()))
        text = written(file)
        assert text.startswith(f"ERROR {message}\nTraceback (most recent call last):\n")
        assert all(char == "\n" or char.isprintable() for char in text)


def test_labels_of_metrics_are_escaped():
    page = exposition([Family("f", "counter", (({"model": HOSTILE + '"\\'}, 1.0),))]).decode("ascii")
    _, line, _ = page.split("\n")
    assert line == 'f{{model="{}\\"\\\\"}} 1'.format(SHOWN.replace("\\", "\\\\").replace("\\\\n", "\\n"))


def test_a_reason_that_is_kept_is_text():
    refusal = Refusal("data", HOSTILE)
    assert refusal.reason == SHOWN and refusal.reason.encode()
