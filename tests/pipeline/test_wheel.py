"""The wheel of this checkout, in an environment of its own, runs the pipeline where there is no checkout."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

from tests.pipeline.conftest import SMALL

pytestmark = pytest.mark.long

CHECKOUT = pathlib.Path(__file__).parents[2]
LOCKED = sysconfig.get_path("purelib")
WHERE = """
import importlib.metadata, json, os, sys
import components, pipeline, serving
files = [module.__file__ for module in (components, pipeline, serving)]
installed = importlib.metadata.distribution("bitsum").files
print(json.dumps([files, [os.path.realpath(entry) for entry in sys.path], len(installed)]))
"""


def _out(*command, cwd, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=clean | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment with the wheel; the other packages are those of this one, without its link to the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    # setuptools writes into the folder from which it builds.
    source = folder / "source"
    for name in ("components", "pipeline", "serving"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    made = folder / "environment"
    _out(sys.executable, "-m", "venv", made, cwd=folder)
    pip = [made / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    building = ["--no-deps", "--no-index", "--no-build-isolation", f"--wheel-dir={folder}"]
    _out(*pip, "wheel", *building, source, cwd=folder, PYTHONPATH=LOCKED)
    [wheel] = folder.glob("bitsum-*.whl")
    shutil.rmtree(source)
    _out(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # Python reads no .pth file of a folder that a .pth file adds, so the editable installation stays out.
    [packages] = made.glob("lib/python*/site-packages")
    (packages / "locked.pth").write_text(f"{LOCKED}\n")
    return made


def test_the_pipeline_runs_from_the_wheel(environment, tmp_path):
    files, path, installed = json.loads(_out(environment / "bin" / "python", "-c", WHERE, cwd=tmp_path))
    assert all(pathlib.Path(file).is_relative_to(environment) for file in files) and installed > 100
    assert not any(pathlib.Path(entry) == CHECKOUT for entry in path)

    bitsum, root = environment / "bin" / "bitsum", tmp_path / "var"
    knobs = [word for knob in (f"pipeline.root={root}", *SMALL) for word in ("--set", knob)]
    output = _out(bitsum, "run", *knobs, cwd=tmp_path)
    assert "proof: proven, right for numbers of any length" in output and "13 + 29 = 42" in output
    lineage = json.loads(_out(bitsum, "lineage", "--json", "--set", f"pipeline.root={root}", cwd=tmp_path))
    assert f"version {lineage['version']} pushed: {root}" in output
    schema = lineage["config"]["knobs"]["ImportSchemaGen"]["schema_file"]
    assert pathlib.Path(schema).is_relative_to(environment)
    assert _out(bitsum, "verify", lineage["path"], "--graph", cwd=tmp_path).startswith("proven: addition of any length")
