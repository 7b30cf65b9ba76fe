"""The code does what SECURITY.md, docs/compatibility.md and docs/release-check.md promise."""

import json
import pathlib
import re

import pytest

from components.errors import ConfigError
from components.proof import certificate
from components.savedmodel import export_format, version_folder
from pipeline import config
from tests.faults.__main__ import SWEEPS
from tests.support import certified

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[1]
COMPATIBILITY = (ROOT / "docs/compatibility.md").read_text()


def row(path: str, name: str) -> list[str]:
    """The cells of the table row whose first cell begins with `name`."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (ROOT / path).read_text().splitlines()]
    return next(cells for cells in rows if cells and cells[0].startswith(name))


def test_formats_have_the_documented_numbers():
    read = f"{export_format.LATEST}; {export_format.FIRST} to {export_format.LATEST} are read"
    assert row("docs/compatibility.md", "export format")[1] == read
    refusal = f"export format is {export_format.LATEST + 1}, this version of bitsum compares {export_format.FIRST} to "
    assert refusal in row("docs/compatibility.md", "export format")[3]
    assert export_format.child(export_format.LATEST) in row("docs/compatibility.md", "export format")[2]
    assert row("docs/compatibility.md", "certificate")[1] == str(certificate.VERSION)
    assert row("docs/compatibility.md", "manifest")[1] == str(version_folder.MANIFEST_FORMAT)


def test_a_later_certificate_is_refused_in_the_documented_words():
    later = certified.certificate() | {"version": certificate.VERSION + 1}
    with pytest.raises(certificate.Malformed) as refusal:
        certificate.parse(json.dumps(later))
    assert f"`{refusal.value}`" in COMPATIBILITY


def test_an_unknown_knob_is_refused_in_the_documented_words():
    with pytest.raises(ConfigError) as refusal:
        config.load(None, ["train.stepz=3"])
    assert f"`{refusal.value}`" in COMPATIBILITY


def test_an_old_manifest_without_spans_and_with_unknown_members_is_accepted(tmp_path):
    file = tmp_path / version_folder.MANIFEST
    file.parent.mkdir()
    old = {"format": version_folder.MANIFEST_FORMAT + 1, "origin": {"task": "addition"}, "new": []}
    file.write_text(json.dumps(old))
    assert version_folder.manifest(tmp_path) == old


def test_security_names_the_limits_of_the_checker():
    assert f"{certificate.MAX_BOXES} boxes" in (ROOT / "SECURITY.md").read_text()


def test_the_release_check_lists_every_operation_and_adds_up():
    table = re.findall(
        r"^\| ([a-z ]+) \| (\d+) \| (\d+) \| (\d+) \|$", (ROOT / "docs/release-check.md").read_text(), re.M
    )
    assert [name for name, *_ in table[:-1]] == [name.replace("-", " ") for name in SWEEPS]
    sums = [sum(int(count) for count in column) for column in list(zip(*table[:-1], strict=True))[1:]]
    assert [int(count) for count in table[-1][1:]] == sums
