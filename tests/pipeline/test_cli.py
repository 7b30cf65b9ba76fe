"""The command line: quick because it imports nothing heavy, one line for every mistake, exit codes as documented."""

import argparse
import importlib.metadata
import logging
import os
import signal
import subprocess
import sys

import pytest

from components import progress
from pipeline import cli
from pipeline.commands import config
from tests.support import release_root

pytestmark = pytest.mark.fast

# What takes seconds to import; and with the clients of the metadata store and of a server, which take half a second.
_SLOW = ("tensorflow", "tfx", "apache_beam", "numpy", "pandas", "keras", "kfp", "tensorflow_data_validation")
_HEAVY = (*_SLOW, "grpc", "ml_metadata")
_DEAD = "127.0.0.1:1"
# The commands that are not here train, serve or compile: run, serve, demo and compile, `node NODE`, `verify --graph`
# and `qualify --export`.
_LIGHT = [
    (_HEAVY, 0, ["--help"]),
    (_HEAVY, 0, ["--version"]),
    *((_HEAVY, 0, [name, "--help"]) for name in cli.COMMANDS),
    (_HEAVY, 0, ["config"]),
    (_HEAVY, 0, ["serve", "--version"]),
    (_HEAVY, 0, ["node", "--list"]),
    (_HEAVY, 0, ["node", "--list", "--json"]),
    (_HEAVY, 0, ["node", "check", "--run-id=x"]),
    (_HEAVY, 0, ["relocate"]),
    (_HEAVY, 0, ["verify", "{version}"]),
    (_SLOW, 0, ["history"]),
    (_SLOW, 0, ["lineage"]),
    (_SLOW, 0, ["gc"]),
    (_SLOW, 0, ["gc", "--delete"]),
    (_SLOW, 0, ["node", "verdict", f"--run-id={release_root.RUN}"]),
    (_SLOW, 1, ["status", f"--server={_DEAD}"]),
    (_SLOW, 0, ["rollout", "--plan", f"--server={_DEAD}", "--config_file={config_file}"]),
    (_SLOW, 3, ["rollback", f"--server={_DEAD}", "--config_file={config_file}"]),
    (_SLOW, 1, ["add", "1", "2", f"--server={_DEAD}"]),
    (_SLOW, 1, ["subtract", "2", "1", f"--server={_DEAD}"]),
    (_SLOW, 1, ["compare", "2", "1", f"--server={_DEAD}"]),
    (_SLOW, 1, ["probe", _DEAD, "--count=1"]),
    (_SLOW, 1, ["qualify", _DEAD, "--deadline=0.1"]),
]


@pytest.fixture(scope="module")
def used_root(tmp_path_factory):
    """A root in which the pipeline ran, with a model config file; at home there."""
    root = release_root.unpacked(tmp_path_factory.mktemp("used"))
    base = root / "serving" / "bitsum"
    (root / "serving" / "models.config").write_text(
        f'''model_config_list {{ config {{ name: "bitsum" base_path: "{base}" model_platform: "tensorflow"
        model_version_policy {{ specific {{ versions: {release_root.VERSION} }} }}
        version_labels {{ key: "stable" value: {release_root.VERSION} }} }} }}'''
    )
    assert cli.main(["history", "-q", "--set", f"pipeline.root={root}"]) == 0
    return root


@pytest.mark.parametrize(("heavy", "code", "arguments"), _LIGHT, ids=[" ".join(one[2]) for one in _LIGHT])
@pytest.mark.slow
def test_a_command_imports_only_what_it_needs(heavy, code, arguments, used_root):
    serving = used_root / "serving"
    names = {"version": serving / "bitsum" / release_root.VERSION, "config_file": serving / "models.config"}
    arguments = [argument.format(**names) for argument in arguments]
    if arguments[0] in cli.COMMANDS and cli.COMMANDS[arguments[0]][2] and "--help" not in arguments:
        arguments += ["--set", f"pipeline.root={used_root}"]
    program = (
        "import sys\nfrom pipeline import cli\n"
        f"code = cli.main({arguments!r})\n"
        f"print(code, [name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"{code} []", done.stderr


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "--set", "train.stepz=3"], 2, "unknown knob train.stepz; did you mean train.steps?"),
        (["run", "--set", "trian.steps=3"], 2, "unknown section 'trian'; did you mean train?"),
        (["run", "--set", "train.nonsense=3"], 2, "unknown knob train.nonsense: train has seed, units,"),
        (["verfy"], 2, "unknown command verfy; did you mean verify?"),
        (["nonsense"], 2, "bitsum --help lists them"),
        (["--versoin"], 2, "unrecognized arguments: --versoin; did you mean --version?"),
        (["compile", "--ouput", "x"], 2, "compile: unrecognized arguments: --ouput; did you mean --output?"),
        (["verify", "model", "--nonsense"], 2, "verify: unrecognized arguments: --nonsense"),
        (["verify", "model", "another"], 2, "unrecognized arguments: another"),
        (["compile"], 2, "--target, --image"),
        (["run", "--set", "train.steps=-3"], 2, "train.steps = -3"),
        (["run", "--config", "no-such-file.toml"], 2, "no-such-file.toml"),
        # A variable of the shell that is not set.
        (["config", "--config", ""], 2, "cannot read the configuration"),
        (["run", "--set", "pipeline.root=/proc/nowhere"], 1, "/proc/nowhere"),
        (["config", "--set", "nonsense"], 2, "invalid override 'nonsense'"),
    ],
)
def test_mistakes_get_one_line_and_their_exit_code(arguments, code, words, capsys):
    assert cli.main(arguments) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("bitsum: ") and output.err.count("\n") == 1
    assert words in output.err


@pytest.mark.parametrize(
    ("failure", "code", "output"),
    [
        (
            PermissionError(13, "Permission denied", "/some/file"),
            1,
            "bitsum: cannot continue: Permission denied: /some/file; run this as a user who may use it\n",
        ),
        (RuntimeError("can't start new thread"), 1, "bitsum: cannot continue: can't start new thread\n"),
        (KeyboardInterrupt(), 130, "bitsum: interrupted\n"),
        (
            KeyboardInterrupt("version 3 is pushed to /served"),
            130,
            "bitsum: interrupted: version 3 is pushed to /served\n",
        ),
        (signal.SIGTERM, 143, "bitsum: terminated\n"),
    ],
)
def test_every_failure_of_a_command_is_one_line(failure, code, output, capsys, monkeypatch):
    def run(args):
        if isinstance(failure, signal.Signals):
            os.kill(os.getpid(), failure)
        raise failure

    monkeypatch.setattr(config, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["config"]) == code
    assert capsys.readouterr().err == output
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert cli.main(["run", "--set", f"pipeline.root={tmp_path}"]) == 1
    assert "thesis.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_a_command_help_is_shown_with_the_exit_code_of_wrong_usage(capsys):
    assert cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_a_knob_is_suggested_for_a_mistyped_one_in_a_file(tmp_path, capsys):
    (tmp_path / "knobs.toml").write_text("[train]\nstepz = 3\n")
    assert cli.main(["config", "--config", str(tmp_path / "knobs.toml")]) == 2
    assert "did you mean train.steps?" in capsys.readouterr().err


def parsers():
    """The parser of each command, by name."""
    for name in cli.COMMANDS:
        top = cli.parser_for([name])
        [commands] = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
        yield name, commands.choices[name]


@pytest.mark.parametrize("name, parser", list(parsers()))
def test_every_option_has_one_line_of_help_and_is_suggested_for_a_mistyped_one(name, parser, capsys):
    for action in parser._actions:
        help = action.help % (vars(action) | {"prog": "bitsum"})
        assert help and "\n" not in help and len(help) <= 120 and not help.endswith("."), help
        assert help.split()[0] not in ("of", "for"), f"{help}: the subject first"
        for option in action.option_strings:
            if not option.startswith("--"):
                continue
            assert cli.main([name, f"{option[:-1]}~"]) == 2
            assert f"unrecognized arguments: {option[:-1]}~; did you mean {option}?" in capsys.readouterr().err


def test_abbreviations_are_refused(capsys):
    assert cli.main(["config", "--conf", "no-such-file.toml"]) == 2
    assert capsys.readouterr().err == "bitsum: config: unrecognized arguments: --conf; did you mean --config?\n"


def test_the_version_is_that_of_the_package(capsys):
    assert cli.main(["--version"]) == 0
    assert f"bitsum {importlib.metadata.version('bitsum')}, TFX " in capsys.readouterr().out


@pytest.mark.parametrize(
    "option, seen", [([], ["note"]), (["-q"], []), (["--quiet"], []), (["-v"], ["a library's line", "note"])]
)
def test_quiet_and_verbose(option, seen, tmp_path):
    """The library's line comes while the command's own streams go elsewhere, as in `bitsum run`."""
    program = f"""
import logging, pathlib, sys
from components import progress
from pipeline import cli, log_capture; from pipeline.commands import relocate
def run(args):
    with log_capture.redirect_output(pathlib.Path({str(tmp_path / "log")!r})):
        logging.getLogger("library").info("a library's line")
    progress.note("note")
    return 0
relocate.run = run
sys.exit(cli.main(["relocate", *{option!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [line.removeprefix("INFO library: ") for line in done.stderr.splitlines()] == seen


def test_quiet_ends_with_the_command(monkeypatch):
    from pipeline.commands import status

    monkeypatch.setattr(status, "run", lambda args: int(progress.shown()))
    assert cli.main(["status", "-q"]) == 0
    assert progress.shown() and logging.getLogger(progress.LOGGER).level == logging.NOTSET


def ended(arguments, **options):
    """Exit code and standard error of a command whose standard output is full, broken or closed."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    # Unbuffered, Python has nothing left to write at exit.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, env=buffered, **options)
    return done.returncode, done.stderr


_LINES = {
    "full": "bitsum: cannot continue: No space left on device: standard output\n",
    "broken": "bitsum: cannot continue: Broken pipe: standard output\n",
    "closed": "bitsum: standard output is closed: redirect it to a file or /dev/null\n",
}
# Those of which something comes without a server or a run before; the others show their help.
_TALKATIVE = (["config"], ["status", "--server=127.0.0.1:1"], ["probe", "127.0.0.1:1", "--count=1", "-q"])
_ALL = [["--help"], ["--version"], *_TALKATIVE, *([name, "--help"] for name in cli.COMMANDS)]


@pytest.mark.parametrize("arguments", _ALL, ids=" ".join)
def test_a_full_closed_or_broken_standard_output_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        assert ended(arguments, stdout=full) == (1, _LINES["full"])
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as broken:
        assert ended(arguments, stdout=broken) == (1, _LINES["broken"])


@pytest.mark.parametrize("arguments", [["--help"], ["config"]])
def test_a_closed_standard_output_is_one_line(arguments):
    assert ended(arguments, preexec_fn=lambda: os.close(1)) == (1, _LINES["closed"])
