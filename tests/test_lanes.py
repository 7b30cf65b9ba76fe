""".ci/lanes with fake programs: no root of another system is made, and nothing is installed."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.fast, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[1]
BASE = ".lanes/trixie,python3,python3-venv,make,git,ca-certificates"
REAL = "bash awk cat cp date dirname env find flock git grep head install mkdir"
REAL += " mv realpath rm sed sleep sort stat tail tee touch tr true wc"
FAKES = {
    "id": "echo 0",
    "getconf": "echo glibc 2.36",
    "apt-get": "",
    "debootstrap": 'echo "I: Retrieving"; for folder in etc dev proc root; do mkdir -p "$5/$folder"; done',
    # Options first, then the command.
    "unshare": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "setpriv": 'shift 2; exec "$@"',
    "mount": "",
    # chroot ROOT env PATH=... bash -c SCRIPT bash COMMAND...
    "chroot": 'shift 7; echo "$*" >>../logged; env >../logged.env; echo "output of $*"',
}


@pytest.fixture
def checkout(tmp_path) -> pathlib.Path:
    """A repository with the script, one commit, and its programs in the folder beside it."""
    folder = tmp_path / "checkout"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/lanes", folder / ".ci")
    (folder / ".gitignore").write_text("/.lanes/\n")
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in REAL.split():
        (programs / name).symlink_to(shutil.which(name))
    for name, script in FAKES.items():
        fake(folder, name, script)
    return folder


def fake(checkout: pathlib.Path, name: str, script: str) -> None:
    file = checkout.parent / "programs" / name
    file.unlink(missing_ok=True)
    file.write_text(f"#!{shutil.which('sh')}\n{script}\n")
    file.chmod(0o755)


def environment(checkout: pathlib.Path, **more: str) -> dict[str, str]:
    return {"PATH": str(checkout.parent / "programs"), "HOME": str(checkout.parent)} | more


def lanes(checkout: pathlib.Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    command = [checkout / ".ci/lanes", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(checkout, **more), timeout=60)


def commands(checkout: pathlib.Path) -> list[str]:
    file = checkout.parent / "logged"
    return file.read_text().splitlines() if file.exists() else []


def test_all_steps_run_in_order_in_a_fresh_clone_that_is_then_removed(checkout):
    done = lanes(checkout)
    assert done.returncode == 0, done.stderr
    assert commands(checkout) == ["make setup", "make run", "make test", "make test ARGS=tests/conformance"]
    assert "output of make run" in done.stdout
    assert "exchange: skipped" in done.stdout
    assert not (checkout / ".lanes/root").exists()


# Keeps a note of its folder and command; as a server it is ready at once and ends with code 0 on SIGTERM.
BITSUM = """echo "$PWD: $1" >>LOGGED
[ "$1" != serve ] || exec PYTHON -c "
import json, os, pathlib, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
pathlib.Path('.lanes/models/ready.json').write_text(json.dumps({'port': 1, 'pid': os.getpid()}))
signal.pause()"
[ "$1" != "$FAILS" ]"""


@pytest.fixture
def two_models(checkout) -> list[pathlib.Path]:
    """The folders of the checkout and of the clone; each has a model and the fake bitsum once the clone has run."""
    both = [checkout, checkout / ".lanes/root/src/bitsum"]
    script = BITSUM.replace("LOGGED", str(checkout.parent / "logged")).replace("PYTHON", sys.executable)
    fake(checkout, "bitsum", script)
    run = "mkdir -p var/serving/bitsum/7 .venv/bin && cp ../../../../../programs/bitsum .venv/bin/"
    fake(checkout, "chroot", f'cd "$1/src/bitsum"; shift 7; [ "$1" = make ] || exec "$@"; {run}')
    (checkout / ".venv/bin").mkdir(parents=True)
    shutil.copy(checkout.parent / "programs/bitsum", checkout / ".venv/bin")
    return both


def test_each_lane_verifies_serves_and_probes_the_model_of_the_other(checkout, two_models):
    (checkout / "var/serving/bitsum/5").mkdir(parents=True)
    done = lanes(checkout, "--steps", "run,exchange")
    assert done.returncode == 0, done.stdout + done.stderr
    assert commands(checkout) == [f"{folder}: {step}" for folder in two_models for step in ("verify", "serve", "probe")]


def test_without_a_model_of_the_checkout_only_the_other_direction_runs(checkout, two_models):
    done = lanes(checkout, "--steps", "run,exchange")
    assert done.returncode == 0 and "skipped in the root" in done.stdout
    assert commands(checkout) == [f"{checkout}: {step}" for step in ("verify", "serve", "probe")]


@pytest.mark.parametrize("failing, ran", [("verify", ["verify"]), ("probe", ["verify", "serve", "probe"])])
def test_a_model_that_the_other_lane_refuses_or_answers_wrong_ends_the_run(checkout, two_models, failing, ran):
    done = lanes(checkout, "--steps", "run,exchange", FAILS=failing)
    assert done.returncode == 1 and "exchange" in done.stderr
    assert commands(checkout) == [f"{checkout}: {step}" for step in ran]


def test_a_failing_step_ends_the_run_and_keeps_the_root(checkout):
    fake(checkout, "chroot", FAKES["chroot"] + '; [ "$*" != "make run" ]')
    done = lanes(checkout)
    assert done.returncode == 1
    assert commands(checkout) == ["make setup", "make run"]
    assert "failed after" in done.stderr and "make run" in done.stderr and str(checkout / ".lanes/log") in done.stderr
    assert (checkout / ".lanes/root/src/bitsum/.ci/lanes").exists()


def test_the_root_cannot_reach_github_and_gets_the_settings_of_the_registries_only(checkout):
    authority = checkout.parent / "authority.pem"
    authority.write_text("an authority\n")
    given = {"SSL_CERT_FILE": str(authority), "https_proxy": "proxy:3128", "PIP_FIND_LINKS": "/opt", "SECRET": "x"}
    fake(checkout, "chroot", FAKES["chroot"] + "; false")
    assert lanes(checkout, "--steps", "setup", **given).returncode == 1
    root = checkout / ".lanes/root"
    assert "0.0.0.0 github.com\n" in (root / "etc/hosts").read_text()
    assert (root / authority.relative_to("/")).read_text() == authority.read_text()
    lines = (checkout.parent / "logged.env").read_text().splitlines()
    seen = dict(line.split("=", 1) for line in lines)
    assert seen["SSL_CERT_FILE"] == str(authority) and seen["https_proxy"] == "proxy:3128"
    assert "github.com" in seen["no_proxy"].split(",") and "github.com" in seen["NO_PROXY"].split(",")
    assert not {"PIP_FIND_LINKS", "SECRET"} & set(seen)


def test_the_base_is_made_once_and_whole(checkout):
    fake(checkout, "debootstrap", FAKES["debootstrap"] + "; exit 5")
    failed = lanes(checkout, "--steps", "setup")
    assert failed.returncode == 1
    assert "exit code 5" in failed.stderr and "I: Retrieving" in failed.stderr
    assert not (checkout / BASE).exists()
    fake(checkout, "debootstrap", FAKES["debootstrap"])
    assert lanes(checkout, "--steps", "setup").returncode == 0
    assert (checkout / BASE).is_dir()
    fake(checkout, "debootstrap", "exit 5")
    assert lanes(checkout, "--steps", "setup").returncode == 0


def test_the_mirror_is_the_machines_own(checkout):
    fake(
        checkout,
        "apt-get",
        "echo other main one/; echo $RELEASE contrib two/; echo $RELEASE main file:four; echo $RELEASE main http://three/",
    )
    fake(checkout, "debootstrap", 'echo "$@" >>../logged; exit 1')
    system = dict(
        line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    lanes(checkout, "--steps", "setup", RELEASE=system.get("VERSION_CODENAME", ""))
    asked = commands(checkout)[0].split()
    assert "--force-check-gpg" in asked and "trixie" in asked
    assert asked[-1] == ("http://three/" if system["ID"] == "debian" else f"{checkout / BASE}.new")


@pytest.mark.parametrize(
    "glibc, suite", [("2.36", "trixie"), ("2.39", "bookworm"), ("2.41", "bookworm"), ("2.5", "trixie")]
)
def test_the_root_is_of_the_other_debian(checkout, glibc, suite):
    fake(checkout, "getconf", f"echo glibc {glibc}")
    assert lanes(checkout, "--steps", "setup").stdout.startswith(f"[lanes] {suite} at ")


def test_uncommitted_changes_are_named(checkout):
    assert "files with" not in lanes(checkout, "--steps", "setup").stdout
    (checkout / "new").touch()
    assert "files with uncommitted changes, which are left out: 1" in lanes(checkout, "--steps", "setup").stdout


def test_a_failed_runs_root_in_which_something_is_mounted_is_left_alone(checkout):
    root = checkout / ".lanes/root"
    (root / "dev").mkdir(parents=True)
    # The only use of grep is to find the mount.
    fake(checkout, "grep", "exit 0")
    done = lanes(checkout, "--steps", "setup")
    assert done.returncode == 1 and "umount it" in done.stderr
    assert (root / "dev").is_dir()


@pytest.mark.parametrize("missing", ["root", "debootstrap", "namespaces"])
@pytest.mark.parametrize("ci, options", [("", []), ("true", []), ("", ["--required"])])
def test_without_what_it_needs_the_run_is_skipped_in_one_line(checkout, missing, ci, options):
    if missing == "root":
        fake(checkout, "id", "echo 1000")
    elif missing == "debootstrap":
        (checkout.parent / "programs/debootstrap").unlink()
    else:
        fake(checkout, "unshare", "exit 1")
    done = lanes(checkout, *options, CI=ci)
    assert done.returncode == (1 if options or (ci and missing != "root") else 0)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert {"root": "sudo make lanes", "debootstrap": "sudo apt-get install debootstrap", "namespaces": "CAP_SYS"}[
        missing
    ] in line
    assert commands(checkout) == []


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--steps", "setup,rum"], "'rum'"),
        (["--steps", "exchange"], "--steps run,exchange"),
        (["--suite", "sid"], "'sid'"),
        (["setup"], "'setup'"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(checkout, arguments, named):
    done = lanes(checkout, *arguments)
    assert done.returncode == 1 and named in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode != 0,
    reason="needs mount namespaces: root, and outside of a chroot",
)
@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_killed_run_leaves_no_process_and_no_mount(checkout, number, code):
    for name in ("unshare", "setpriv", "mount"):
        (checkout.parent / "programs" / name).unlink()
        (checkout.parent / "programs" / name).symlink_to(shutil.which(name))
    fake(checkout, "chroot", "touch ../logged; read -r _ <../pipe")
    os.mkfifo(checkout.parent / "pipe")
    process = subprocess.Popen([checkout / ".ci/lanes"], env=environment(checkout), stdout=subprocess.DEVNULL)
    while not (checkout.parent / "logged").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    # Every process of the run holds this lock.
    subprocess.run(["flock", "--timeout", "60", checkout / ".lanes/lock", "true"], check=True)
    assert str(checkout) not in pathlib.Path("/proc/mounts").read_text()
