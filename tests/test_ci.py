"""Automatic checks of a change: .ci/run, the pre-commit hooks, the GitHub Actions workflow."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

from components.settings import Serve

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[1]
TARGETS = ["lint", "typecheck", "coverage", "test", "test-long", "airflow-test", "lanes"]


@pytest.fixture
def ci_run(tmp_path):
    """A function: (packages, user id, failing target) -> (exit code, commands) of .ci/run, with fake programs."""

    def run(packages: str, user: int, failing: str = "") -> tuple[int, list[str]]:
        (tmp_path / ".ci").mkdir()
        shutil.copy(ROOT / ".ci/run", tmp_path / ".ci")
        (tmp_path / ".ci/packages").write_text(packages)
        programs = {
            "id": f"echo {user}",
            "apt-get": f'echo apt-get "$@" >>{tmp_path}/log',
            "make": f'echo "$2" >>{tmp_path}/log; [ "$2" != "{failing}" ]',
        }
        for name, script in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
        done = subprocess.run([tmp_path / ".ci/run"], env=os.environ | {"PATH": path}, capture_output=True, text=True)
        return done.returncode, (tmp_path / "log").read_text().splitlines()

    return run


def test_fast_checks_come_first_and_a_failure_ends_the_run(ci_run):
    assert ci_run("# none\n", 0, failing="typecheck") == (1, TARGETS[:2])


def test_root_installs_the_listed_packages(ci_run):
    install = ["apt-get update", "apt-get install --yes --no-install-recommends graphviz libfoo-dev"]
    assert ci_run("# why\ngraphviz  # make this\n\nlibfoo-dev\n", 0) == (0, [*install, *TARGETS])


def test_a_user_installs_nothing(ci_run):
    assert ci_run("graphviz\n", 1000) == (0, TARGETS)


def test_an_empty_list_installs_nothing(ci_run):
    assert ci_run("# none\n", 0) == (0, TARGETS)


def test_the_list_has_a_name_each_line(ci_run):
    install = "apt-get install --yes --no-install-recommends debootstrap debian-archive-keyring"
    assert ci_run((ROOT / ".ci/packages").read_text(), 0) == (0, ["apt-get update", install, *TARGETS])


@pytest.mark.parametrize("target", TARGETS)
def test_the_targets_of_ci_run_exist(target):
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)


def test_hooks_use_the_programs_of_the_project():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {hook["id"]: hook for repository in repositories for hook in repository["hooks"]}
    assert {repository["repo"] for repository in repositories} == {"local"}
    assert {name: hook["entry"].split()[-1] for name, hook in hooks.items()} == {
        "lint": "lint",
        "typecheck": "typecheck",
    }
    assert {hook["language"] for hook in hooks.values()} == {"system"}


def test_the_workflow_has_read_permissions_time_limits_and_official_actions():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    jobs = workflow["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert workflow["permissions"] == {"contents": "read"}
    assert not [name for name, job in jobs.items() if "permissions" in job or not 0 < job["timeout-minutes"] <= 120]
    actions = [step["uses"] for step in steps if "uses" in step]
    assert actions and all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in actions)
    assert ".ci/run" in [step.get("run") for step in jobs["checks"]["steps"]]
    assert jobs["tensorflow-serving"]["env"]["IMAGE"] == Serve().image
