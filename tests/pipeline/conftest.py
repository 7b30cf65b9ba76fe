"""Small runs of the real pipeline, in this process, each in a folder of its own."""

import pytest

from pipeline import cli

# As few bits, records and requests as still exercise every step; the model is trained in full, or it would be refused.
SMALL = (
    "data.long_lengths=[16, 100]",
    "data.long_examples=40",
    "data.train_examples=3000",
    "data.eval_examples=500",
    "infra.examples=60",
)


@pytest.fixture
def bitsum_run(tmp_path, capfd):
    """A function: overrides -> (exit code, terminal, errors) of `bitsum run` in tmp_path / "var"."""

    def run(*overrides, options=()):
        settings = [f"pipeline.root={tmp_path / 'var'}", *SMALL, *overrides]
        code = cli.main(["run", *options, *(word for setting in settings for word in ("--set", setting))])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run
