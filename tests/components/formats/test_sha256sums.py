"""components.formats.sha256sums against `sha256sum` itself."""

import hashlib
import os
import subprocess

import pytest

from components.formats import sha256sums

pytestmark = pytest.mark.fast

NAMES = ["pairs.csv", "two  blanks.csv", " first.csv", "*star.csv", "back\\slash.csv", "\\n.csv", "new\nline.csv"]
NAMES += ["cr\r.csv", "day/pairs.csv", "é.csv", os.fsdecode(b"\xff.csv"), "#.csv"]
HASH = hashlib.sha256(b"").hexdigest()


def sha256sum(*arguments, **options):
    return subprocess.run(["sha256sum", *arguments], capture_output=True, **options)


@pytest.mark.parametrize("mode", ["--text", "--binary"])
@pytest.mark.parametrize("place", ["", "./"])
def test_what_sha256sum_writes_is_read(tmp_path, mode, place):
    (tmp_path / "day").mkdir()
    for name in NAMES:
        (tmp_path / name).write_bytes(os.fsencode(name))
    written = sha256sum(mode, "--", *(place + name for name in NAMES), cwd=tmp_path, check=True).stdout
    entries, strange = sha256sums.parse(written)
    assert [(entry.name, entry.sha256) for entry in entries] == [
        (place + name, hashlib.sha256(os.fsencode(name)).hexdigest()) for name in NAMES
    ]
    assert [entry.line for entry in entries] == list(range(1, len(NAMES) + 1)) and not strange


@pytest.mark.parametrize(
    "line",
    [
        f"{HASH}  a",
        f"{HASH} *a",
        f"{HASH.upper()}  a",
        f"{HASH}  a\r",
        f"\\{HASH}  a",
        "# a comment",
        "",
        f"{HASH[1:]}  a",
        f"{HASH}0  a",
        f"{HASH}",
        f"{HASH}  ",
        f"g{HASH[1:]}  a",
        f"\\{HASH}  \\a",
        f"\\{HASH}  a\\",
        "a",
    ],
)
def test_a_line_is_read_as_sha256sum_reads_it(tmp_path, line):
    for name in ("a", "b"):
        (tmp_path / name).touch()
    content = f"{HASH}  b\n{line}\n".encode()
    checked = sha256sum("--check", "--strict", input=content, cwd=tmp_path)
    entries, strange = sha256sums.parse(content)
    assert checked.returncode == (1 if strange else 0)
    assert checked.stdout.splitlines() == [os.fsencode(f"{entry.name}: OK") for entry in entries]
    assert strange in ([], [2])


def test_a_last_line_without_newline_counts():
    assert sha256sums.parse(f"{HASH}  a".encode()) == ([sha256sums.Entry(1, HASH, "a")], [])
