"""The README is true: its commands and flags exist, and so do the files that it links to."""

import pathlib
import re
import shlex

import pytest

from pipeline import cli

pytestmark = pytest.mark.fast

TOP = pathlib.Path(__file__).resolve().parents[1]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        line[2:].split("  ")[0].rstrip("& ")
        for page in PAGES
        for line in page.read_text().splitlines()
        if line.startswith("$ bitsum ")
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
