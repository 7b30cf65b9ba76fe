"""`bitsum demo bomb` as a user runs it."""

import pathlib
import re
import subprocess
import sys

import pytest


@pytest.mark.long
def test_the_bomb_passes_every_test_and_only_the_proof_refuses_it(tmp_path):
    bitsum = pathlib.Path(sys.executable).with_name("bitsum")
    root = tmp_path / "var"
    done = subprocess.run([bitsum, "demo", "bomb", "--root", root], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.search(r"^  data: passed", done.stdout, re.MULTILINE)
    assert re.search(
        r"^  evaluation: passed, exact match at least 1 at 11 lengths from 1 to 4096 bits$", done.stdout, re.MULTILINE
    )
    assert re.search(r"^  proof: REFUSED, wrong: it answers \S+.* \+ .* = .* is right$", done.stdout, re.MULTILINE)
    assert re.search(r"^  infra validation: passed", done.stdout, re.MULTILINE)
    assert not (root / "serving").exists()

    position = int(re.search(r"^The first wrong bit of that sum is at position (\d+);", done.stdout, re.MULTILINE)[1])
    assert 143_000 <= position < 2**18
