"""README, docs and workflow are true: their commands and flags exist, and so do the files that they link to."""

import pathlib
import re
import shlex

import pytest

from pipeline import cli

pytestmark = pytest.mark.fast

TOP = pathlib.Path(__file__).resolve().parents[1]
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


# The changelog names files that were there once.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    for path in re.findall(r"`((?:components|pipeline|serving|tests)/[a-z_/.]+)`", page.read_text()):
        assert (TOP / path).exists(), path
    for name in re.findall(r"`(test_[a-z_]+\.py)`", page.read_text()):
        assert list((TOP / "tests").rglob(name)), name
