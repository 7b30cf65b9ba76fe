"""Folders of spans: names, missing and empty folders, and a fingerprint that depends only on the content."""

import datetime
import errno
import os

import pytest

from components import regular_files
from components.data import span_folders, span_reader
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
    assert span_folders.folder_of(str(tmp_path), 3, "3").name == "span-3"
    assert span_folders.folder_of(str(tmp_path), 10, "10").name == "span-1970-01-11"


def test_the_error_for_a_missing_span_names_existing_spans(tmp_path):
    with pytest.raises(BitsumError, match="is not a folder: create it, with a folder span-4"):
        span_folders.folder_of(str(tmp_path / "missing"), 4, "4")
    for name in ("span-2", "span-1970-01-02", "span-1970-01-11"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        BitsumError,
        match=r"span 1970-01-05 does not exist: .* has no folder span-1970-01-05 "
        r"\(its last spans: 1970-01-02, 2, 1970-01-11\)",
    ):
        span_folders.folder_of(str(tmp_path), 4, "1970-01-05")


def test_two_folders_for_one_span_are_refused(tmp_path):
    for name in ("span-2", "span-1970-01-03"):
        (tmp_path / name).mkdir()
    with pytest.raises(BitsumError, match=r"span-1970-01-03 and span-2 in .* are both span 1970-01-03: remove one"):
        span_folders.folder_of(str(tmp_path), 2, "1970-01-03")


LITTER = [".DS_Store", "._pairs.csv", ".part", "_SUCCESS", "Thumbs.db", "desktop.ini", "pairs.csv.tmp", "README"]
LITTER += ["README.md", "readme.txt"]


def test_what_is_no_data_is_listed_and_not_read(tmp_path):
    for place in (tmp_path, tmp_path / "day", tmp_path / ".snapshot"):
        place.mkdir(exist_ok=True)
        for name in (*LITTER, "pairs.csv", "readme.csv", "SHA256SUMS"):
            (place / name).touch()
    found = span_folders.listing(tmp_path)
    data, sums, ignored = ([path.relative_to(tmp_path).as_posix() for path in paths] for paths in found)
    assert data == ["day/pairs.csv", "day/readme.csv", "pairs.csv", "readme.csv"]
    assert sums == ["SHA256SUMS", "day/SHA256SUMS"]
    assert set(ignored) == {".snapshot", *LITTER, *(f"day/{name}" for name in LITTER)}
    assert span_folders.named(tmp_path, found.ignored[:6]) == (
        ".DS_Store, ._pairs.csv, .part, .snapshot, README and 1 more"
    )


def test_a_span_without_data_is_empty(tmp_path):
    with pytest.raises(BitsumError, match=r"the span is empty: .* has no files with data$"):
        span_folders.fingerprint(tmp_path)
    for name in ("_SUCCESS", ".part", "SHA256SUMS"):
        (tmp_path / name).touch()
    with pytest.raises(BitsumError, match=r"has no files with data \(ignored: .part, _SUCCESS\)"):
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
    (tmp_path / "SHA256SUMS").touch()
    assert span_folders.fingerprint(tmp_path) != first
    (tmp_path / "SHA256SUMS").unlink()
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
    with pytest.raises(
        BitsumError, match=f"cannot read {tmp_path}/day: Permission denied; run this as a user who may read it"
    ):
        span_folders.listing(tmp_path)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            errno.EACCES,
            r"cannot read {}: Permission denied; run this as a user .* a\+rX; run the span again once it can be read",
        ),
        (errno.EIO, "cannot read {}: Input/output error; run the span again once it can be read"),
        (errno.ENOENT, "{} vanished while the span was read: run the span again once it is complete"),
    ],
)
def test_an_unreadable_file_is_an_error_that_says_why(tmp_path, monkeypatch, code, words):
    file = tmp_path / "pairs.csv"
    file.touch()

    def fails(path):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(regular_files, "opened", fails)
    for read in (span_folders.fingerprint, lambda folder: span_reader.read(folder, Data())):
        with pytest.raises(BitsumError, match=words.format(file)):
            read(tmp_path)


def test_a_date_is_a_span_and_stays_a_date():
    found = config.load(None, ["data.span=2026-11-22"])
    assert found.data.span == 20779 == (datetime.date(2026, 11, 22) - datetime.date(1970, 1, 1)).days
    assert found.data.span_name == "2026-11-22"
    assert "span = 2026-11-22" in config.to_toml(found)
    again = Data.from_json(found.data.to_json())
    assert (again.span, again.span_name) == (20779, "2026-11-22")
    number = config.load(None, ["data.span=20779"])
    assert (number.data.span_name, number.data.span_date) == ("20779", "")
    assert "span = 20779" in config.to_toml(number) and '"span": 20779' in number.data.to_json()
    with pytest.raises(ConfigError, match=r"data.span = -1: must be at least 0"):
        Data(span=datetime.date(1969, 12, 31))
    with pytest.raises(ConfigError, match=r"data.span = '2026-02-30': must be a number or a date such as 2026-11-22"):
        Data(span="2026-02-30")


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_that_leads_to_no_file_is_refused(tmp_path, target):
    folder = tmp_path / "span-1"
    folder.mkdir()
    (folder / "pairs.csv").write_text("1,2\n")
    (tmp_path / "elsewhere").mkdir()
    (folder / "more").symlink_to(tmp_path / target)
    with pytest.raises(BitsumError, match="more is a link that does not lead to a file"):
        span_folders.listing(folder)


def test_what_is_neither_file_nor_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pairs.csv")
    with pytest.raises(BitsumError, match=r"pairs\.csv is not a regular file"):
        span_folders.listing(tmp_path)
