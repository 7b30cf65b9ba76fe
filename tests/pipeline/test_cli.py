"""The command line: quick because it imports nothing heavy, one line for every mistake, exit codes as documented."""

import os
import signal
import subprocess
import sys

import pytest

from pipeline import cli
from pipeline.commands import config

pytestmark = pytest.mark.fast

_HEAVY = ("tensorflow", "tfx", "apache_beam", "numpy", "grpc", "ml_metadata")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["config"], *([name, "--help"] for name in ("run", "serve", "probe", "add", "compare"))]
)
def test_help_and_config_import_nothing_heavy(arguments):
    program = (
        "import sys\nfrom pipeline import cli\n"
        f"try:\n    cli.main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([name for name in {_HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", list(cli._COMMANDS))
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "--set", "train.stepz=3"], 2, "unknown knob train.stepz"),
        (["run", "--set", "train.steps=-3"], 2, "train.steps = -3"),
        (["run", "--config", "no-such-file.toml"], 2, "no-such-file.toml"),
        (["run", "--set", "pipeline.root=/proc/nowhere"], 1, "/proc/nowhere"),
        (["config", "--set", "nonsense"], 2, "'nonsense' is no override"),
    ],
)
def test_mistakes_get_one_line_and_their_exit_code(arguments, code, words, capsys):
    assert cli.main(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("bitsum: ") and said.err.count("\n") == 1
    assert words in said.err


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/some/file"),
            1,
            "bitsum: cannot go on: Permission denied: /some/file\n",
        ),
        (RuntimeError("can't start new thread"), 1, "bitsum: cannot go on: can't start new thread\n"),
        (KeyboardInterrupt(), 130, "bitsum: interrupted\n"),
        (
            KeyboardInterrupt("version 3 is pushed to /served"),
            130,
            "bitsum: interrupted: version 3 is pushed to /served\n",
        ),
        (signal.SIGTERM, 143, "bitsum: terminated\n"),
    ],
)
def test_whatever_ends_a_command_is_one_line(failure, code, said, capsys, monkeypatch):
    def run(args):
        if isinstance(failure, signal.Signals):
            os.kill(os.getpid(), failure)
        raise failure

    monkeypatch.setattr(config, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["config"]) == code
    assert capsys.readouterr().err == said
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert cli.main(["run", "--set", f"pipeline.root={tmp_path}"]) == 1
    assert "thesis.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_a_command_the_help_is_shown_and_the_exit_code_is_that_of_a_mistake(capsys):
    assert cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().out
