"""The campaign of certified seeds, at two seeds."""

import re

from benchmarks import certified_seeds
from benchmarks.certified_seeds import Row


def test_two_seeds_are_certified(capsys):
    assert certified_seeds.main(["1000", "1001"]) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"^seed 100[01]: first certificate after \d+ steps, \d+ in all, margin \d", printed, re.MULTILINE)) == 2
    assert "| 1000 to 1001 | 2 of 2 | " in printed


def test_a_seed_that_is_not_certified_is_counted_and_fails(monkeypatch, capsys):
    rows = {1: Row(1, 150, 550, 4.5, 9.0, 12.0), 2: Row(2, None, 1000, None, 15.0, 20.0), 3: Row(3, 250, 650, 3.5, 10.0, 13.0)}
    monkeypatch.setattr(certified_seeds, "run", rows.get)
    assert certified_seeds.main(["1", "3"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "| 1 to 3 | 2 of 3 | 200, 250 | 4.00, 3.50 | 10.0, 15.0 | 13.0, 20.0 |"
