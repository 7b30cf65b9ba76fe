"""The documents are true: their commands, options, knobs, paths, modules and links exist."""

import argparse
import ast
import pathlib
import re
import shlex

import pytest

from pipeline import cli, config

pytestmark = pytest.mark.fast

TOP = pathlib.Path(__file__).resolve().parents[1]
PAGES = [*sorted(TOP.glob("*.md")), *sorted((TOP / "docs").rglob("*.md")), TOP / "requirements/README.md"]
# The changelog names what earlier versions had.
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
WORKFLOW = TOP / ".github/workflows/ci.yml"

FOLDERS = (
    "airflow",
    "benchmarks",
    "components",
    "docs",
    "pipeline",
    "requirements",
    "serving",
    "tests",
    ".ci",
    ".github",
)
FILE_NAMES = {path.name for folder in FOLDERS for path in (TOP / folder).rglob("*")} | {
    path.name for path in TOP.iterdir()
}
# Files of a run, of a pushed version or of the user, and endings that are no knobs either.
ELSEWHERE = {"manifest.json", "root.json", "conftest.py"}
ENDINGS = ("csv", "json", "py", "sqlite", "svg")
# Options that the documents mention alone and that another program has.
FOREIGN_OPTIONS = {"--run-backwards", "--universal"}


def spans(page: pathlib.Path) -> list[str]:
    """The code in backticks in a page's prose."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))


def shell_lines(page: pathlib.Path) -> list[str]:
    """The commands in a page's shell blocks."""
    blocks = re.findall(r"```(sh|console)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [(kind, line) for kind, block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ") for kind, line in lines if kind == "sh" or line.startswith("$ ")]


def commands() -> list[str]:
    lines = [line for page in PAGES for line in shell_lines(page)] + WORKFLOW.read_text().splitlines()
    found = [re.search(r"(?:^|[|/] ?)(bitsum [a-z][^;|\n]*)", line) for line in lines]
    return sorted({match[1].split("  ")[0].rstrip("& ") for match in found if match})


def parser_of(command: str) -> argparse.ArgumentParser:
    (subparsers,) = (
        action for action in cli.parser_for([command])._actions if isinstance(action, argparse._SubParsersAction)
    )
    return subparsers.choices[command]


def options(command: str) -> set[str]:
    return {name for action in parser_of(command)._actions for name in action.option_strings}


def defines(name: str) -> bool:
    """Whether a dotted name is a module or something that one defines."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        folder = TOP.joinpath(*parts[:end])
        file = next((file for file in (folder.with_suffix(".py"), folder / "__init__.py") if file.exists()), None)
        if file:
            return not parts[end:] or bool(re.search(rf"\b{parts[end]}\b", file.read_text()))
    return False


@pytest.mark.parametrize("line", commands())
def test_documented_commands_parse(line):
    arguments = shlex.split(line, comments=True)[1:]
    assert cli.parser_for(arguments).parse_args(arguments).command == arguments[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, anchor


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_paths_that_are_named_exist(page):
    words = [word.rstrip(",.:;)") for text in spans(page) + shell_lines(page) for word in text.split()]
    paths = [word for word in words if "/" in word and word.partition("/")[0] in FOLDERS]
    assert not [path for path in paths if not (TOP / path).exists()]


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    names = [name for name in spans(page) if re.fullmatch(r"\w[\w-]*\.(py|md|toml|txt|in|sh|json|pbtxt)", name)]
    assert not [name for name in names if name not in FILE_NAMES | ELSEWHERE]


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_modules_that_are_named_exist(page):
    words = [word for text in spans(page) + shell_lines(page) for word in text.split()]
    names = {word for word in words if re.fullmatch(r"(benchmarks|components|pipeline|serving|tests)(\.\w+)+", word)}
    knobs = {f"pipeline.{knob}" for knob in vars(config.Pipeline())}
    assert not [name for name in names - knobs if not defines(name)]


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_imports_in_examples_exist(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert all(defines(f"{node.module}.{alias.name}") for alias in node.names), node.module


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_commands_and_options_that_are_named_exist(page):
    every_option = FOREIGN_OPTIONS.union(*map(options, cli.COMMANDS), ["--version"])
    for text in spans(page):
        words = text.replace("=", " ").split()
        if words[0] == "bitsum" and len(words) > 1 and not words[1].startswith("-"):
            assert words[1] in cli.COMMANDS, text
            assert {word for word in words if word.startswith("--")} <= options(words[1]), text
        elif words[0].startswith("--"):
            assert words[0] in every_option, text


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_knobs_that_are_named_exist(page):
    sections = vars(config.Config())
    named = [re.match(r"([a-z]+)\.([a-z_]+)($|[ =])", text) for text in spans(page)]
    named += re.finditer(r"--set[ =]([a-z]+)\.([a-z_]+)", page.read_text())
    knobs = [(match[1], match[2]) for match in named if match and match[1] in sections and match[2] not in ENDINGS]
    assert not [f"{section}.{knob}" for section, knob in knobs if not hasattr(sections[section], knob)]
