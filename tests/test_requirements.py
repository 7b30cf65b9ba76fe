"""The lock, the project file and the set-up scripts, on which a fresh checkout relies."""

import dataclasses
import datetime
import os
import pathlib
import re
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from pipeline.config import tomllib

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
LANES = {"1.16": ["3.10"], "1.21": ["3.11", "3.12", "3.13"]}
LOCKS = (
    *(f"lock-{lane}.txt" for lane in LANES),
    "airflow.txt",
    "postgresql.txt",
    "uv.txt",
    "compiler.txt",
    "maven.txt",
    "sqlite.txt",
)


def pinned(name: str) -> dict[str, list[str]]:
    """{"package==version": hashes} of a file in requirements/; any other line is an error."""
    hashes_of: dict[str, list[str]] = {}
    last = ""
    for line in (REQUIREMENTS / name).read_text().splitlines():
        line = line.strip().removesuffix("\\").strip()
        if not line or line.startswith("#"):
            continue
        if match := re.fullmatch(r"--hash=sha256:([0-9a-f]{64})", line):
            hashes_of[last].append(match[1])
        else:
            last = re.fullmatch(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[0-9][^ ;]*(?= *;|$)", line.partition(" ;")[0])[0]
            hashes_of[last] = []
    return hashes_of


@dataclasses.dataclass(frozen=True)
class Lock:
    """What a lane's lock installs on Linux with one version of Python."""

    lane: str
    environment: dict[str, str]
    versions: dict[str, str]


@pytest.fixture(scope="module", params=[(lane, python) for lane in LANES for python in LANES[lane]], ids="-".join)
def lock(request) -> Lock:
    lane, python = request.param
    environment = {"python_version": python, "python_full_version": f"{python}.5", "sys_platform": "linux"}
    lines = re.findall(r"^[a-z0-9].*?(?= \\$)", (REQUIREMENTS / f"lock-{lane}.txt").read_text(), re.MULTILINE)
    wanted = [Requirement(line) for line in lines]
    versions = {r.name: str(r.specifier).removeprefix("==") for r in wanted if applies(r, environment)}
    return Lock(lane, environment, versions)


def applies(requirement: Requirement, environment: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment)


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_changelog_has_the_version_of_the_project(project):
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [re.fullmatch(r"(\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)", heading).groups() for heading in headings[1:]]
    assert headings[0] == "Unreleased"
    assert released[0][0] == project["version"]
    dates = [datetime.date.fromisoformat(date) for _, date in released]
    assert dates == sorted(dates, reverse=True)


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_with_hashes(name):
    packages = pinned(name)
    assert packages
    assert not [package for package, hashes in packages.items() if not hashes]


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.iterdir()), ids=lambda path: path.name)
def test_no_index_is_named(path):
    assert not re.findall(r"https?://\S+|--(?:extra-)?index-url\b.*|--find-links\b.*", path.read_text())


def test_one_tensorflow(project, lock):
    """pip users get `tensorflow`; the locks replace it on Linux with the smaller build, and never have both."""
    named = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    assert "tensorflow" in named and "tensorflow-cpu" in lock.versions
    assert "tensorflow" not in lock.versions and "tensorflow-cpu" not in named


def test_the_lock_satisfies_the_project(project, lock):
    wrong = []
    for line in project["dependencies"] + [
        line for extra in project["optional-dependencies"].values() for line in extra
    ]:
        wanted = Requirement(line)
        name = canonicalize_name(wanted.name)
        version = lock.versions.get("tensorflow-cpu" if name == "tensorflow" else name)
        if applies(wanted, lock.environment) and not (version and wanted.specifier.contains(version)):
            wrong.append(f"{line}: the lock has {version}; make lock")
    assert not wrong


def test_the_lanes_are_those_of_the_project(project):
    """Each Python that the project supports has one lane."""
    supported = SpecifierSet(project["requires-python"])
    minors = [f"3.{minor}" for minor in range(8, 20) if supported.contains(f"3.{minor}.0")]
    assert minors == [python for pythons in LANES.values() for python in pythons]


def test_the_build_backend_is_locked(lock):
    """The project is built without isolation, with the build backend of the lock."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert not [
        line
        for line in build
        if not Requirement(line).specifier.contains(lock.versions[canonicalize_name(Requirement(line).name)])
    ]


@pytest.mark.parametrize("path", ["requirements/install.sh", "requirements/install-airflow.sh", ".ci/run"])
def test_scripts_are_executable(path):
    assert os.access(ROOT / path, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / path], check=True)


def documented_targets() -> list[tuple[str, str]]:
    """(file, target) of each `make TARGET` in the documents, the hooks and the workflow."""
    texts = [*ROOT.glob("*.md"), *REQUIREMENTS.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    texts += [ROOT / ".pre-commit-config.yaml", *(ROOT / ".github/workflows").iterdir()]
    command = re.compile(r"(?:^|[`$] ?|run: |entry: )make(?: --[a-z-]+)* ([a-z][a-z-]*)", re.MULTILINE)
    return sorted(
        {(str(path.relative_to(ROOT)), target) for path in texts for target in command.findall(path.read_text())}
    )


@pytest.mark.parametrize("file, target", documented_targets())
def test_documented_targets_exist(file, target):
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{file} names `make {target}`: {done.stderr}"


def test_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[1] for line in shown.splitlines()] == targets
