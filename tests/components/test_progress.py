"""Progress on the terminal while the pipeline runs, and the redirection of library output."""

import io
import re
import subprocess
import sys

import pytest

from components.progress import STAGE_WIDTH, Progress, hidden, note, report, tell, warn
from pipeline import nodes

pytestmark = pytest.mark.fast


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_per_stage_when_done_and_reports_in_between_with_their_numbers():
    stream = io.StringIO()
    with Progress(stream, interval=0.0) as drawn:
        drawn.begin("train")
        report("train", step=300, of=1000, loss=0.012345, exact_match=1)
        tell("stopped early")
        drawn.end("done")
    first, said, last = stream.getvalue().splitlines()
    assert said == "    train: stopped early"
    assert "train: 300 of 1,000, loss 0.01235, exact_match 1" in first
    assert last.split() == ["train", "0.0", "s", "done"]


def test_hidden_progress_still_writes_warnings_and_lines_that_stay(capsys):
    stream = _Terminal()
    with hidden(), Progress(stream, interval=0.0) as drawn:
        note("a note")
        drawn.begin("train")
        report("train", step=1, of=2)
        tell("stopped early")
        warn("a warning")
        drawn.end("done")
        drawn.line("the verdict")
    assert stream.getvalue() == "    train: a warning\nthe verdict\n" and capsys.readouterr() == ("", "")
    note("a note")
    assert capsys.readouterr() == ("", "a note\n")


def test_reports_are_spaced_where_there_is_no_terminal():
    stream = io.StringIO()
    with Progress(stream, interval=3600.0) as drawn:
        drawn.begin("train")
        for step in range(100):
            report("train", step=step, of=100)
    assert stream.getvalue() == ""


def test_a_terminal_has_its_line_redrawn_and_left_clean():
    stream = _Terminal()
    with Progress(stream, interval=0.0) as drawn:
        drawn.begin("train")
        report("train", step=1, of=2)
        drawn.end("done")
    assert "1 of 2" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_the_column_fits_every_stage():
    assert max(map(len, nodes.STAGES.values())) == STAGE_WIDTH


def test_without_a_stage_the_step_is_named_and_others_may_write_in_between():
    stream = _Terminal()
    with Progress(stream) as drawn:
        report("stream", step=8000, of=16000, unit="bits")
        with drawn.hidden():
            stream.write("42\n")
    assert re.match(r"\r\x1b\[K  stream +\d+\.\d s   8,000 of 16,000 bits", stream.getvalue())
    assert "\x1b[K42\n" in stream.getvalue()


def test_reports_without_a_listener_have_no_effect(capfd):
    report("train", step=1)
    assert capfd.readouterr() == ("", "")


_NOISY = """
import logging, os, pathlib, sys, warnings
from pipeline import log_capture
with log_capture.redirect_output(pathlib.Path(sys.argv[1])) as terminal:
    print("printed")
    os.write(2, b"from C++\\n")
    logging.getLogger("library").info("logged")
    warnings.warn("warned")
    terminal.write("shown\\n")
print("after")
"""


def test_library_output_goes_to_the_file_and_the_terminal_keeps_its_lines(tmp_path):
    log = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", _NOISY, str(log)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("shown\nafter\n", "")
    written = log.read_text()
    assert all(word in written for word in ("printed", "from C++", "logged", "warned"))
