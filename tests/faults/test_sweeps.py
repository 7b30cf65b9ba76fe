"""Every operation under every fault of each of its steps, with --exhaustive; under a sample of them otherwise."""

import subprocess
import sys

import pytest

from tests.faults.__main__ import SWEEPS


@pytest.mark.parametrize("name", SWEEPS)
def test_no_fault_makes_it_lie_or_leave_something_behind(name, tmp_path, request):
    """In a process of its own, which patches Python and forks, and so must not have TensorFlow's threads."""
    exhaustive = ["exhaustive"] if request.config.getoption("--exhaustive", default=False) else []
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", name, str(tmp_path), *exhaustive], capture_output=True, text=True
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 violations" in done.stdout
