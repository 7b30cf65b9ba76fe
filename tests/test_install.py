"""requirements/install.sh without installing: an existing environment, and machines that lack something."""

import configparser
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path) -> pathlib.Path:
    """The files of a checkout that the script reads, in a folder whose name has a space."""
    folder = tmp_path / "my checkout"
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    shutil.copy(ROOT / "pyproject.toml", folder)
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
    checkout: pathlib.Path, *arguments: str, programs: pathlib.Path | None = None, **variables: str
) -> subprocess.CompletedProcess:
    path = os.pathsep.join([*([str(programs)] if programs else []), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, **variables}
    return subprocess.run(
        [checkout / "requirements/install.sh", *arguments], capture_output=True, text=True, env=env, timeout=60
    )


def call(checkout: pathlib.Path, script: str, *arguments: str, **variables: str) -> str:
    """What bash prints for `script` with the functions of install.sh."""
    command = ["bash", "-c", f". requirements/install.sh; {script}", "bash", *arguments]
    env = {**os.environ, **variables}
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=True).stdout.strip()


def pretend_set_up(checkout: pathlib.Path, lane: str) -> None:
    program_folder = checkout / ".venv/bin"
    program_folder.mkdir(parents=True)
    program(program_folder, "python", "exit 0")
    (checkout / ".venv/.setup").write_text(f"{lane} {call(checkout, f'wanted_state {lane}')}\n")


def machine(
    programs: pathlib.Path, system: str, processor: str, glibc: str = "", pythons: tuple[str, ...] = ()
) -> None:
    """Programs that describe another machine. Pythons of this machine do not start on it."""
    program(programs, "uname", f'[ "$1" = -s ] && echo {system} || echo {processor}')
    program(programs, "getconf", f"echo glibc {glibc}" if glibc else "exit 1")
    for version in ("3.10", "3.11", "3.12", "3.13"):
        program(programs, f"python{version}", f"echo /python{version}" if version in pythons else "exit 1")


# TFX has no wheels for this machine: the script stops there, so no test installs anything.
ELSEWHERE = "echo Darwin x86_64"


def test_a_complete_environment_is_left_alone(checkout, programs):
    pretend_set_up(checkout, "1.21")
    program(programs, "uname", ELSEWHERE)
    done = install(checkout, programs=programs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (checkout / ".uv").exists()


@pytest.mark.parametrize("changed", ["requirements/lock-1.21.txt", "pyproject.toml", "requirements/install.sh"])
def test_a_changed_source_file_sets_up_again(changed, checkout, programs):
    pretend_set_up(checkout, "1.21")
    program(programs, "uname", ELSEWHERE)
    with open(checkout / changed, "a") as file:
        file.write("\n")
    assert install(checkout, programs=programs).returncode == 1


def test_a_moved_or_unfinished_environment_is_set_up_again(checkout, programs):
    pretend_set_up(checkout, "1.21")
    program(programs, "uname", ELSEWHERE)
    moved = checkout.rename(checkout.with_name("moved"))
    assert install(moved, programs=programs).returncode == 1
    moved.rename(checkout)
    (checkout / ".venv/.setup").write_text("unfinished\n")
    done = install(checkout, programs=programs)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_another_lane_is_set_up_and_the_same_is_left_alone(checkout, programs):
    pretend_set_up(checkout, "1.21")
    program(programs, "uname", ELSEWHERE)
    assert install(checkout, programs=programs, BITSUM_LANE="1.21").returncode == 0
    assert install(checkout, programs=programs, BITSUM_LANE="1.16").returncode == 1


LANE = (
    'starting_python() { for v; do "python$v" 2>/dev/null && return; done; true; }; choose_lane; echo "$LANE: $REASON"'
)


@pytest.mark.parametrize(
    "system, processor, glibc, pythons, lane",
    [
        ("Linux", "x86_64", "2.36", ("3.11",), "1.16: TFX 1.21 needs glibc 2.39; this machine has glibc 2.36"),
        ("Linux", "x86_64", "2.39", ("3.12",), "1.21: glibc 2.39 and /python3.12"),
        ("Linux", "x86_64", "2.41", ("3.10", "3.11", "3.13"), "1.21: glibc 2.41 and /python3.13"),
        ("Linux", "x86_64", "2.100", ("3.11",), "1.21: glibc 2.100 and /python3.11"),
        (
            "Linux",
            "x86_64",
            "2.41",
            ("3.10",),
            "1.16: no Python 3.11 to 3.13 starts here; BITSUM_LANE=1.21 downloads one",
        ),
        ("Darwin", "arm64", "", (), "1.21: Darwin arm64"),
    ],
)
def test_the_lane_of_a_machine(system, processor, glibc, pythons, lane, checkout, programs):
    machine(programs, system, processor, glibc, pythons)
    path = f"{programs}:{os.environ['PATH']}"
    assert call(checkout, LANE, PATH=path, BITSUM_LANE="") == lane


@pytest.mark.parametrize(
    "system, processor, glibc, lane, words",
    [
        ("Darwin", "x86_64", "", "", "no wheels for this machine (Darwin x86_64, no glibc)"),
        ("Linux", "aarch64", "2.41", "", "no wheels for this machine (Linux aarch64, glibc 2.41)"),
        ("Linux", "x86_64", "", "", "no glibc"),
        ("Linux", "x86_64", "2.17", "", "TFX needs glibc 2.28 or later; this machine has glibc 2.17"),
        ("Linux", "x86_64", "2.36", "1.21", "TFX 1.21 needs glibc 2.39 or later; this machine has glibc 2.36"),
        ("Darwin", "arm64", "", "1.16", "TFX 1.16 has no wheels"),
        ("Linux", "x86_64", "2.41", "1.20", "BITSUM_LANE is '1.20'; it must be 1.16 or 1.21"),
    ],
)
def test_a_machine_without_a_lane_is_refused_in_one_line(system, processor, glibc, lane, words, checkout, programs):
    machine(programs, system, processor, glibc)
    done = install(checkout, programs=programs, BITSUM_LANE=lane)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert words in done.stderr
    assert not (checkout / ".uv").exists()


def test_a_python_that_starts_is_found_behind_one_that_does_not(checkout, programs, tmp_path):
    """As with pyenv, whose shims do not start where the version is not chosen."""
    version = f"3.{sys.version_info.minor}"
    program(programs, f"python{version}", "echo pyenv: command not found >&2; exit 127")
    folder = tmp_path / f"pyenv/versions/{version}.99/bin"
    folder.mkdir(parents=True)
    (folder / "python3").symlink_to(sys.executable)
    path = f"{programs}:{os.environ['PATH']}"
    shown = call(
        checkout,
        f'first_that_starts {version} python{version} "$PYENV_ROOT"/versions/{version}.*/bin/python3',
        PATH=path,
        PYENV_ROOT=str(tmp_path / "pyenv"),
    )
    assert os.path.realpath(shown) == os.path.realpath(sys._base_executable)
    assert call(checkout, f"first_that_starts 3.2 python{version} || echo none", PATH=path) == "none"


MADE = "check_disk() { :; }; find_python() { PYTHON=python3; }; discard() { :; }; stage() { echo made; }; make_venv"


def test_only_a_whole_environment_of_this_lane_and_folder_is_updated(checkout):
    pretend_set_up(checkout, "1.21")
    (checkout / ".venv/bin/bitsum").write_text(f"#!{checkout}/.venv/bin/python\n")
    assert call(checkout, f"LANE=1.21; {MADE}") == ""
    assert call(checkout, f"LANE=1.16; {MADE}") == "made"
    moved = checkout.rename(checkout.with_name("moved"))
    assert call(moved, f"LANE=1.21; {MADE}") == "made"
    moved.rename(checkout)
    (checkout / ".venv/.setup").write_text("unfinished\n")
    assert call(checkout, f"LANE=1.21; {MADE}") == "made"


@pytest.mark.parametrize(
    "variables, configured, wanted",
    [
        ({"SSL_CERT_FILE": "one"}, "", ["one", "machine's or one", "one"]),
        ({"PIP_CERT": "one"}, "", ["one", "one", "one"]),
        ({"REQUESTS_CA_BUNDLE": "one"}, "", ["one", "machine's or one", "one"]),
        ({}, "[global]\ncert = ~/one\n", ["one", "one", "one"]),
        ({"SSL_CERT_FILE": "one", "PIP_CERT": "two"}, "", ["one", "two", "one"]),
        ({"SSL_CERT_FILE": "one"}, "[global]\ncert = ~/two\n", ["one", "two", "one"]),
    ],
)
def test_the_authorities_named_for_one_program_reach_all(variables, configured, wanted, checkout, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).touch()
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/pip.conf").write_text(configured)
    names = ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"]
    clean = dict.fromkeys(names, "") | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "PIP_CONFIG_FILE": ""}
    settings = clean | {name: str(tmp_path / value) for name, value in variables.items()}
    shown = call(checkout, f"adopt_certificates; printenv {' '.join(names)}", **settings)
    machine = configparser.ConfigParser()
    machine.read("/etc/pip.conf")
    paths = {name: str(tmp_path / name) for name in ("one", "two")}
    paths["machine's or one"] = machine.get("global", "cert", fallback=paths["one"])
    assert shown.splitlines() == [paths[name] for name in wanted]


def test_a_missing_system_package_is_named_with_its_command(checkout, programs):
    machine(programs, "Linux", "x86_64", "2.36")
    program(programs, "python3", 'case "$2" in *ensurepip*) exit 1 ;; esac')
    done = install(checkout, programs=programs)
    assert done.returncode == 1
    assert "sudo apt-get install python3-venv" in done.stderr


def test_a_checkout_that_cannot_be_written_is_refused_in_one_line(checkout, programs):
    machine(programs, "Linux", "x86_64", "2.36")
    (checkout / ".uv").write_text("in the way")
    done = install(checkout, programs=programs)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert f"cannot write to {checkout}/.uv" in done.stderr


def test_a_full_disk_is_refused_before_the_downloads(checkout, programs):
    program(programs, "df", "echo head; echo disk 9999 9000 123 99% /")
    path = f"{programs}:{os.environ['PATH']}"
    assert "3177 MB are missing in" in call(checkout, "(check_disk) 2>&1 || true", PATH=path)
    # An older environment makes room.
    (checkout / ".venv").mkdir()
    program(programs, "du", "printf '3177\\t.venv\\n'")
    assert "missing" not in call(checkout, "check_disk 2>&1", PATH=path)


PIP_RETRY = "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by "
PIP_NOTHING = "': /simple/uv/\nERROR: No matching distribution found for uv==0.13.9"
UV_CONNECT = """error: Request failed after 3 retries in 4.2s
  cause: Failed to fetch: https://registry.example/simple/aiohttp/
  cause: client error (Connect)
"""


# Ends of the logs of pip 23.2 and uv 0.13.9 in such cases.
@pytest.mark.parametrize(
    "log, cause",
    [
        (
            f"{PIP_RETRY}'NewConnectionError('Failed to establish a new connection: [Errno -3] Temporary failure in"
            f" name resolution'){PIP_NOTHING}",
            "no connection to the package registry;",
        ),
        (
            f"{UV_CONNECT}  cause: dns error\n  cause: failed to lookup address information: Temporary failure in name"
            " resolution",
            "no connection to https://registry.example;",
        ),
        (
            f"{PIP_RETRY}'ProxyError('Cannot connect to proxy.', NewConnectionError('[Errno 111] Connection refused'))"
            f"{PIP_NOTHING}",
            "no connection to the package registry; check the network and HTTPS_PROXY",
        ),
        (
            f"{PIP_RETRY}'ReadTimeoutError(\"HTTPConnectionPool(host='registry.example', port=80): Read timed out."
            f' (read timeout=15)"){PIP_NOTHING}',
            "no answer from registry.example;",
        ),
        (f"{UV_CONNECT}  cause: tcp connect error\n  cause: deadline has elapsed", "no answer from https://registry"),
        (
            f"{PIP_RETRY}'SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify"
            " failed'))'\nHTTPSConnectionPool(host='registry.example', port=443): Max retries exceeded",
            "the certificate of registry.example is not trusted;",
        ),
        (
            f"{UV_CONNECT}  cause: invalid peer certificate: UnknownIssuer",
            "the certificate of https://registry.example",
        ),
        (
            "error: Failed to download `asn1crypto==1.5.1`\n  cause: Hash mismatch for `asn1crypto==1.5.1`\n\n"
            "         Expected:\n           sha256:00",
            "asn1crypto==1.5.1 is not the locked file;",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n    uv==0.13.9 from"
            " example/uv-0.13.9-py3-none-any.whl:\n        Expected sha256 00\n             Got        d7",
            "uv-0.13.9-py3-none-any.whl is not the locked file;",
        ),
        (
            ".uv/package/cpython.jar: FAILED\nsha256sum: WARNING: 1 computed checksum did NOT match",
            "cpython.jar is not the locked file;",
        ),
        ("error: failed to copy file: No space left on device (os error 28)", "the disk is full: "),
        ("error: failed to create file: Read-only file system (os error 30)", "the file system is read-only;"),
        ("fatal: the flux is low\nbye", "fatal: the flux is low"),
        # A connection that was retried is not the cause.
        (
            f"{PIP_RETRY}'Read timed out'\nERROR: Could not install packages: Permission denied",
            "ERROR: Could not install",
        ),
        (
            "error: no index at https://me:secret@registry.example/simple",
            "error: no index at https://registry.example/",
        ),
        (
            UV_CONNECT.replace("https://", "https://me:secret@") + "  cause: connection refused",
            "no connection to https://registry.example;",
        ),
        ("bye", "bye"),
    ],
)
def test_a_failure_is_told_by_its_cause_in_one_line(log, cause, checkout):
    (checkout / ".uv").mkdir()
    (checkout / ".uv/setup.log").write_text(f"== installer\nNo space left on device\n== packages\n{log}\n")
    told = call(checkout, "cause")
    assert told.startswith(cause) and "\n" not in told


def test_an_unknown_failure_is_told_in_the_last_words_of_its_program(checkout, programs):
    machine(programs, "Linux", "x86_64", "2.36")
    program(programs, "python3", 'case "$*" in *"-m venv"*) echo fatal: the flux is low; echo bye; exit 28 ;; esac')
    done = install(checkout, programs=programs)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert ": fatal: the flux is low. Run the same command again" in done.stderr


def test_an_unknown_argument_is_refused(checkout):
    done = install(checkout, "lokc")
    assert done.returncode == 1
    assert "'lokc'" in done.stderr
