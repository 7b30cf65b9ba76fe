"""The whole pipeline for tasks other than addition, by configuration alone."""

import pytest

from components.savedmodel import version_folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "lines"),
    [
        ("subtraction", ["13 - 29 = -16", "0 - 0 = 0", "18446744073709551615 - 1 = 18446744073709551614"]),
        ("comparison", ["13 > 29: False", "0 > 0: False", "18446744073709551615 > 1: True"]),
    ],
)
def test_another_task_is_learned_evaluated_and_served(bitsum_run, tmp_path, task, lines):
    code, terminal, errors = bitsum_run(f"data.task={task}")
    assert (code, errors) == (0, "")
    assert "evaluation: blessed, exact match at least 1 at 10 lengths from 1 to 100 bits" in terminal
    assert "infra validation: blessed" in terminal
    assert [line for line in lines if f"    {line}\n" not in terminal] == []
    [version] = version_folder.versions(tmp_path / "var" / "serving" / "bitsum")
    assert f"version {version} pushed" in terminal
