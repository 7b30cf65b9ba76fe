"""The campaign of certified seeds, at two seeds."""

import re

from benchmarks import certified_seeds


def test_two_seeds_are_certified(capsys):
    assert certified_seeds.main(["1000", "1001"]) == 0
    printed = capsys.readouterr().out
    assert (
        len(
            re.findall(
                r"^seed 100[01]: first certificate after \d+ steps, \d+ in all, margin \d", printed, re.MULTILINE
            )
        )
        == 2
    )
    assert "| 1000 to 1001 | 2 of 2 | " in printed
