"""README, docs and workflow are true: their commands and flags exist, and so do the files that they link to."""

import pathlib
import re
import shlex

import pytest

from pipeline import cli

TOP = pathlib.Path(__file__).resolve().parents[2]
PAGES = [*sorted(TOP.glob("*.md")), *sorted((TOP / "docs").rglob("*.md"))]
WORKFLOW = TOP / ".github/workflows/ci.yml"
COMMANDS = sorted(
    {
        line.split("  ")[0].rstrip("& ")
        for page in [*PAGES, WORKFLOW]
        for line in re.findall(r"(?:^\$ |\.venv/bin/)(bitsum [a-z][^;\n]*)", page.read_text(), re.MULTILINE)
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_documented_commands_parse(line):
    arguments = shlex.split(line, comments=True)[1:]
    assert cli._parser(arguments).parse_args(arguments).command == arguments[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
