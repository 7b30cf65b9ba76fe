"""The commands add, subtract and compare over an in-memory channel: input, output and task."""

import contextlib
import io
import os
import sys

import grpc
import pytest

from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION
from pipeline import cli
from tests.support.in_memory import Channel, Failure

pytestmark = pytest.mark.fast


@pytest.fixture
def standard_input(monkeypatch, tmp_path):
    """A function that makes bytes the standard input."""

    with contextlib.ExitStack() as stack:

        def use(data):
            (tmp_path / "standard_input").write_bytes(data)
            monkeypatch.setattr(sys, "stdin", stack.enter_context(open(tmp_path / "standard_input")))

        yield use


@pytest.mark.parametrize(
    ("command", "task", "a", "b", "printed"),
    [
        ("add", ADDITION, "13", "29", "42"),
        ("subtract", SUBTRACTION, "13", "29", "-16"),
        ("subtract", SUBTRACTION, "0xff", "0b1", "254"),
        ("subtract", SUBTRACTION, "0", "1" + "0" * 5000, "-1" + "0" * 5000),
        ("compare", COMPARISON, "13", "29", "False"),
        ("compare", COMPARISON, "29", "13", "True"),
        ("compare", COMPARISON, "29", "29", "False"),
    ],
    ids=lambda value: str(getattr(value, "name", value))[:10],
)
def test_the_answer_is_printed_and_nothing_else(serve, capsys, command, task, a, b, printed):
    serve(Channel(task=task))
    assert cli.main([command, a, b]) == 0
    assert tuple(capsys.readouterr()) == (f"{printed}\n", "")


@pytest.mark.parametrize("command", ["add", "subtract", "compare"])
def test_a_negative_operand_is_refused_in_one_line(capsys, command):
    assert cli.main([command, "-5", "3"]) == 2
    assert tuple(capsys.readouterr()) == ("", "bitsum: -5 is negative: a number must be a non-negative integer\n")


@pytest.mark.parametrize(("base", "printed"), [("10", "42"), ("16", "0x2a"), ("2", "0b101010")])
def test_answers_in_the_given_base(serve, capsys, base, printed):
    serve(Channel())
    assert cli.main(["add", "0xd", "29", "--base", base]) == 0
    assert capsys.readouterr().out == f"{printed}\n"


@pytest.mark.parametrize("arguments", [[], ["-"], ["--file", "-"]])
def test_pairs_from_standard_input(serve, standard_input, capsys, arguments):
    serve(Channel())
    standard_input(b"\xef\xbb\xbf13 29\n\n0xff\t0B1\r\n  +1 002 \n")
    assert cli.main(["add", *arguments]) == 0
    assert tuple(capsys.readouterr()) == ("42\n256\n3\n", "")


def test_pairs_from_files_come_out_in_order_in_few_calls(serve, capsys, tmp_path):
    channel = serve(Channel(task=SUBTRACTION))
    (tmp_path / "one").write_text("".join(f"{n} {3 * n}\n" for n in range(3000)))
    (tmp_path / "two").write_text(f"1{'0' * 5000} 1\n5 5")
    assert cli.main(["subtract", "--file", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert capsys.readouterr().out.split() == [*(str(-2 * n) for n in range(3000)), "9" * 5000, "0"]
    assert len(channel.requests) < 20


def test_windows_are_bounded_and_answers_precede_the_end_of_the_input(serve, capsys):
    reading, writing = os.pipe()
    seen = []

    def spoil(signature, outputs):
        # The second window is written after the first one is requested.
        if len(seen) == 1:
            os.write(writing, b"3 4\n")
            os.close(writing)
        seen.append(capsys.readouterr().out)

    serve(Channel(spoil))
    os.write(writing, b"13 29\n1 ")
    seen.append("")
    with open(reading) as pipe, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", pipe)
        assert cli.main(["add"]) == 2
    out, err = capsys.readouterr()
    assert "".join(seen) + out == "42\n" and "standard input, line 2: 3 numbers instead of a pair" in err


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"5", "1 numbers instead of a pair"),
        (b"5 6 7", "3 numbers"),
        (b"5 six", "'six' is not an integer"),
        (b"5 -6", "-6 is negative"),
        (b"5 \xff\xfe", "is not an integer"),
    ],
)
def test_a_bad_line_is_named_after_the_answers_before_it(serve, capsys, tmp_path, line, reason):
    serve(Channel())
    path = tmp_path / "pairs.txt"
    path.write_bytes(b"13 29\n\n2 2\n" + line + b"\n1 1\n")
    assert cli.main(["add", "--file", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "42\n4\n" and err.startswith(f"bitsum: {path}, line 4: ") and reason in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["1"], 2, "1 numbers instead of a pair"),
        (["1", "2", "3"], 2, "3 numbers"),
        (["1", "2", "--file", "x"], 2, "give only one of"),
        (["--packed", "x", "y"], 2, "needs --output"),
        (["1", "2", "--output", "x"], 2, "needs --output"),
        (["--file", "/absent"], 1, "cannot read /absent: No such file"),
        (["--file", "/tmp"], 1, "cannot read /tmp: Is a directory"),
        (["--packed", "/absent", "/dev/null", "--output", "/tmp/absent"], 1, "cannot read /absent: No such file"),
        (["--packed", "/dev/null", "/dev/null", "--output", "/absent/x"], 1, "cannot write /absent/x: No such file"),
        (
            ["--packed", "/dev/null", "/dev/null", "--output", "/dev/null/x"],
            1,
            "cannot write /dev/null/x: Not a directory",
        ),
        (["1", "2", "--deadline", "0"], 2, "--deadline 0, --attempts 7: the deadline must be more than 0"),
        (["1", "2", "--deadline", "nan"], 2, "--deadline nan"),
        (["1", "2", "--deadline", "-1e300"], 2, "--deadline -1e+300"),
        (["1", "2", "--deadline", "ten"], 2, "invalid float value: 'ten'"),
        (
            ["1", "2", "--attempts", "0"],
            2,
            "--attempts 0: the deadline must be more than 0, and the attempts at least 1",
        ),
        (["1", "2", "--max_batch_size", "0"], 2, "--max_batch_size 0: must be at least 1"),
        (["1", "2", "--tls_ca", "/absent"], 2, "cannot read /absent"),
        (["1", "2", "--tls_key", "/absent"], 2, "/absent alone"),
    ],
)
def test_mistakes_get_one_line(serve, capsys, arguments, code, words):
    serve(Channel())
    assert cli.main(["add", *arguments]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and err.startswith("bitsum: ") and words in err


def test_without_numbers_on_a_terminal_the_command_does_not_wait(serve, capsys, monkeypatch):
    serve(Channel())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert cli.main(["add"]) == 2
    assert "0 numbers instead of a pair" in capsys.readouterr().err


def test_packed_files(serve, capsys, tmp_path):
    a, b, output = tmp_path / "a.bin", tmp_path / "b.bin", tmp_path / "sum.bin"
    a.write_bytes(b"\xff" * 5000)
    b.write_bytes(b"\x01")
    channel = serve(Channel())
    assert cli.main(["add", "--packed", str(a), str(b), "--output", str(output)]) == 0
    assert output.read_bytes() == bytes(5000) + b"\x01" and tuple(capsys.readouterr()) == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b.bin", "sum.bin"]
    channel.task = SUBTRACTION
    assert cli.main(["subtract", "--packed", str(b), str(a), "--output", str(output)]) == 0
    assert int.from_bytes(output.read_bytes(), "little", signed=True) == 1 - (256**5000 - 1)
    channel.task = COMPARISON
    for first, second, verdict in ((a, b, "True"), (b, a, "False"), (a, a, "False")):
        assert cli.main(["compare", "--packed", str(first), str(second)]) == 0
        assert capsys.readouterr().out == f"{verdict}\n"


def test_a_failed_packed_answer_leaves_no_files(serve, capsys, tmp_path):
    def refuse(signature, outputs):
        raise Failure(grpc.StatusCode.UNAVAILABLE, "Connection refused")

    (tmp_path / "a").write_bytes(bytes(100))
    (tmp_path / "sum").write_bytes(b"before")
    serve(Channel(refuse))
    packed = ["--packed", *2 * [str(tmp_path / "a")], "--output", str(tmp_path / "sum")]
    assert cli.main(["add", *packed, "--attempts=1"]) == 1
    assert (tmp_path / "sum").read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 2
    assert "no model server answers at" in capsys.readouterr().err


def test_a_warning_of_the_client_is_a_line_on_standard_error(serve, capsys):
    serve(Channel(labels=()))
    assert cli.main(["add", "13", "29"]) == 0
    out, err = capsys.readouterr()
    assert out == "42\n"
    assert err == "bitsum: 127.0.0.1:8500 has no version of bitsum with the label stable: asking for the newest\n"


@pytest.mark.parametrize(
    ("flags", "choice"), [(["--version=1"], "version"), (["--label=stable"], "version_label"), (["--label="], None)]
)
def test_version_and_label_flags(serve, flags, choice):
    channel = serve(Channel())
    assert cli.main(["add", "13", "29", *flags]) == 0
    assert channel.requests[0].model_spec.WhichOneof("version_choice") == choice


@pytest.mark.parametrize(("deadline", "timeout"), [("2.5", 2.5), ("inf", None), ("1e300", None)])
def test_a_deadline_may_be_infinite(serve, capsys, deadline, timeout):
    channel = serve(Channel())
    assert cli.main(["add", "13", "29", "--deadline", deadline]) == 0
    assert capsys.readouterr().out == "42\n" and channel.timeouts == [timeout]


def test_progress_is_shown_on_a_terminal(serve, monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    serve(Channel())
    (tmp_path / "a").write_bytes(bytes(5000))
    assert (
        cli.main(["add", "--packed", str(tmp_path / "a"), str(tmp_path / "a"), "--output", str(tmp_path / "sum")]) == 0
    )
    assert "of 40,008 bits" in terminal.getvalue() and terminal.getvalue().endswith("\r\x1b[K")
