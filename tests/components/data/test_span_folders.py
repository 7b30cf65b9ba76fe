"""Folders of spans: names, missing and empty folders, and a fingerprint that depends only on the content."""

import datetime
import os

import pytest

from components.data import span_folders
from components.errors import BitsumError, ConfigError
from components.settings import Data
from pipeline import config

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("span-7", 7),
        ("span-007", 7),
        ("span-1970-01-02", 1),
        ("span-2026-11-22", 20779),
        ("span-20261122", 20261122),
        ("span-", None),
        ("span-x", None),
        ("spans-7", None),
        ("span-7b", None),
        ("span-2026-02-30", None),
    ],
)
def test_a_folder_is_a_number_or_a_date(name, span):
    assert span_folders.span_of(name) == span


def test_the_folder_of_a_span_is_found_by_number_and_by_date(tmp_path):
    for name in ("span-3", "span-1970-01-11", "notes"):
        (tmp_path / name).mkdir()
    assert span_folders.folder_of(str(tmp_path), 3).name == "span-3"
    assert span_folders.folder_of(str(tmp_path), 10).name == "span-1970-01-11"


def test_the_error_for_a_missing_span_names_existing_spans(tmp_path):
    with pytest.raises(BitsumError, match="is not a folder: create it, with a folder span-4"):
        span_folders.folder_of(str(tmp_path / "missing"), 4)
    (tmp_path / "span-2").mkdir()
    with pytest.raises(BitsumError, match=r"span 4 does not exist: .* has no folder span-4 \(its last spans: 2\)"):
        span_folders.folder_of(str(tmp_path), 4)


def test_two_folders_for_one_span_are_refused(tmp_path):
    for name in ("span-2", "span-1970-01-03"):
        (tmp_path / name).mkdir()
    with pytest.raises(BitsumError, match=r"span-1970-01-03 and span-2 in .* are both span 2"):
        span_folders.folder_of(str(tmp_path), 2)


def test_a_span_without_files_is_empty(tmp_path):
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part").touch()
    with pytest.raises(BitsumError, match="the span is empty"):
        span_folders.fingerprint(tmp_path)


def test_the_fingerprint_is_of_names_and_contents(tmp_path):
    file = tmp_path / "day" / "pairs.csv"
    file.parent.mkdir()
    file.write_text("1,2\n")
    first = span_folders.fingerprint(tmp_path)
    file.write_text("1,2\n")
    (tmp_path / "_SUCCESS").touch()
    assert span_folders.fingerprint(tmp_path) == first
    file.write_text("1,3\n")
    assert span_folders.fingerprint(tmp_path) != first
    file.write_text("1,2\n")
    file.rename(tmp_path / "day" / "other.csv")
    assert span_folders.fingerprint(tmp_path) != first


def test_an_unreadable_folder_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "pairs.csv").touch()
    (tmp_path / "pairs.csv").touch()
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("day"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BitsumError, match=f"cannot read {tmp_path}/day: Permission denied"):
        span_folders.files_of(tmp_path)


def test_a_date_is_a_span_and_prints_as_its_number(tmp_path):
    found = config.load(None, ["data.span=2026-11-22"])
    assert found.data.span == 20779 == (datetime.date(2026, 11, 22) - datetime.date(1970, 1, 1)).days
    assert "span = 20779" in config.to_toml(found)
    with pytest.raises(ConfigError, match=r"data.span = -1: must be at least 0"):
        Data(span=datetime.date(1969, 12, 31))


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_that_leads_to_no_file_is_refused(tmp_path, target):
    folder = tmp_path / "span-1"
    folder.mkdir()
    (folder / "pairs.csv").write_text("1,2\n")
    (tmp_path / "elsewhere").mkdir()
    (folder / "more").symlink_to(tmp_path / target)
    with pytest.raises(BitsumError, match="more is a link that does not lead to a file"):
        span_folders.files_of(folder)
