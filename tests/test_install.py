"""requirements/install.sh without installing: an existing environment, and machines that lack something."""

import os
import pathlib
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path) -> pathlib.Path:
    """The files of a checkout that the script reads, in a folder whose name has a space."""
    folder = tmp_path / "my checkout"
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    for name in ("pyproject.toml", ".python-version"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def programs(tmp_path) -> pathlib.Path:
    """The first folder on the script's PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


def program(folder: pathlib.Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def install(
    checkout: pathlib.Path, *arguments: str, programs: pathlib.Path | None = None
) -> subprocess.CompletedProcess:
    path = os.pathsep.join([*([str(programs)] if programs else []), os.environ["PATH"]])
    command = [checkout / "requirements/install.sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=60)


def pretend_set_up(checkout: pathlib.Path) -> None:
    program_folder = checkout / ".venv/bin"
    program_folder.mkdir(parents=True)
    program(program_folder, "python", "exit 0")
    subprocess.run(
        ["bash", "-c", '. "$1" && wanted_state >.venv/.setup', "bash", checkout / "requirements/install.sh"], check=True
    )


# TFX has no wheels for this machine: the script stops there, so no test installs anything.
ELSEWHERE = "echo Darwin arm64"


def test_a_complete_environment_is_left_alone(checkout, programs):
    pretend_set_up(checkout)
    program(programs, "uname", ELSEWHERE)
    done = install(checkout, programs=programs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (checkout / ".uv").exists()


@pytest.mark.parametrize(
    "changed", ["requirements/lock.txt", "pyproject.toml", ".python-version", "requirements/install.sh"]
)
def test_a_changed_source_file_sets_up_again(changed, checkout, programs):
    pretend_set_up(checkout)
    program(programs, "uname", ELSEWHERE)
    with open(checkout / changed, "a") as file:
        file.write("\n")
    assert install(checkout, programs=programs).returncode == 1


def test_a_moved_or_unfinished_environment_is_set_up_again(checkout, programs):
    pretend_set_up(checkout)
    program(programs, "uname", ELSEWHERE)
    moved = checkout.rename(checkout.with_name("moved"))
    assert install(moved, programs=programs).returncode == 1
    moved.rename(checkout)
    (checkout / ".venv/.setup").write_text("unfinished\n")
    assert install(checkout, programs=programs).returncode == 1


def test_an_unsupported_machine_is_refused_in_one_line(checkout, programs):
    program(programs, "uname", ELSEWHERE)
    done = install(checkout, programs=programs)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "no wheels" in done.stderr and "Darwin" in done.stderr
    assert not (checkout / ".uv").exists()


def test_a_missing_system_package_is_named_with_its_command(checkout, programs):
    program(programs, "uname", '[ "$1" = -s ] && echo Linux || echo x86_64')
    program(programs, "python3", 'case "$2" in *ensurepip*) exit 1 ;; esac')
    done = install(checkout, programs=programs)
    assert done.returncode == 1
    assert "sudo apt-get install python3-venv" in done.stderr


def test_a_failing_stage_shows_the_end_of_its_log(checkout, programs):
    program(programs, "uname", '[ "$1" = -s ] && echo Linux || echo x86_64')
    program(programs, "python3", 'case "$*" in *"-m venv"*) echo the disk is full; exit 28 ;; esac')
    done = install(checkout, programs=programs)
    assert done.returncode == 1
    assert "exit code 28" in done.stderr and "the disk is full" in done.stderr


def test_an_unknown_argument_is_refused(checkout):
    done = install(checkout, "lokc")
    assert done.returncode == 1
    assert "'lokc'" in done.stderr
