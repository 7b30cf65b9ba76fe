"""Small runs of the real pipeline, in this process, each in a folder of its own."""

import pytest

from benchmarks.kills import SMALL
from pipeline import cli
from tests.support.metadata_stores import Store


@pytest.fixture
def bitsum_run(tmp_path, capfd):
    """A function: overrides -> (exit code, terminal, errors) of `bitsum run` in tmp_path / "var"."""

    def run(*overrides, options=()):
        settings = [f"pipeline.root={tmp_path / 'var'}", *SMALL, *overrides]
        code = cli.main(["run", *options, *(word for setting in settings for word in ("--set", setting))])
        output = capfd.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def store(tmp_path):
    """An empty metadata store in tmp_path / "var"."""
    return Store(tmp_path / "var")
