"""A span with SHA256SUMS: no file is accepted with other content, and the file that differs is named."""

import codecs
import gzip
import subprocess

import pytest
import tensorflow as tf

from components.data import span_reader
from components.data.tf_examples import serialize
from components.settings import Data
from components.task.addition import FEATURE_A, FEATURE_B, FEATURE_LENGTH, FEATURE_SUM

pytestmark = pytest.mark.fast

DATA = Data(max_length=4, long_lengths=(), train_examples=5, eval_examples=5)


def add_sums(folder, *names):
    content = subprocess.run(["sha256sum", *names], cwd=folder, check=True, capture_output=True).stdout
    (folder / "SHA256SUMS").write_bytes(content)


def offenders(folder):
    return [str(offender) for offender in span_reader.read(folder, DATA).offenders]


def put(folder, name, content="1,2\n"):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)


def test_each_difference_is_named(tmp_path):
    for name in ("a.csv", "b.csv", "day/c.csv", "README"):
        put(tmp_path, name)
    add_sums(tmp_path, "./a.csv", "--binary", "b.csv", "day/c.csv", "README")
    assert offenders(tmp_path) == []
    put(tmp_path, "a.csv", "1,3\n")
    (tmp_path / "b.csv").unlink()
    (tmp_path / "README").unlink()
    put(tmp_path, "d.csv")
    assert offenders(tmp_path) == [
        "a.csv: its content differs from its SHA-256 in SHA256SUMS, line 1",
        "b.csv: listed in SHA256SUMS, line 2, but absent",
        "d.csv: not listed in SHA256SUMS",
    ]


@pytest.mark.parametrize("name", ["_b.csv", ".b.tfrecord.gz", "README/b.csv"])
def test_data_that_is_listed_but_has_a_name_of_no_data_is_not_left_out(tmp_path, name):
    # The last one is what macOS writes beside a file.
    for each in (names := ("a.csv", name, "._a.csv")):
        put(tmp_path, each)
    add_sums(tmp_path, *names)
    (tmp_path / "SHA256SUMS").write_bytes(codecs.BOM_UTF8 + (tmp_path / "SHA256SUMS").read_bytes())
    assert offenders(tmp_path) == [f"{name}: listed in SHA256SUMS, line 2, but ignored because of its name: rename it"]


def test_a_list_covers_its_folder_and_those_below(tmp_path):
    for name in ("a.csv", "day/b.csv", "day/hour/c.csv"):
        put(tmp_path, name)
    add_sums(tmp_path / "day", "b.csv")
    assert offenders(tmp_path) == ["day/hour/c.csv: not listed in day/SHA256SUMS"]
    add_sums(tmp_path / "day", "b.csv", "hour/c.csv")
    assert offenders(tmp_path) == []
    # As `find -type f` lists them.
    add_sums(tmp_path, "a.csv", "day/b.csv", "day/hour/c.csv", "day/SHA256SUMS")
    put(tmp_path, "SHA256SUMS", (tmp_path / "SHA256SUMS").read_text() + f"{'0' * 64}  ./SHA256SUMS\n")
    assert offenders(tmp_path) == []


@pytest.mark.parametrize("name", ["../span-8/a.csv", "/etc/passwd", "README/../../a.csv"])
def test_a_file_outside_of_the_span_is_absent(tmp_path, name):
    put(tmp_path, "a.csv")
    add_sums(tmp_path, "a.csv")
    put(tmp_path, "SHA256SUMS", (tmp_path / "SHA256SUMS").read_text() + f"{'0' * 64}  {name}\n")
    assert offenders(tmp_path) == [f"{name}: listed in SHA256SUMS, line 2, but absent"]


def test_lines_that_are_none_are_named(tmp_path):
    put(tmp_path, "a.csv")
    add_sums(tmp_path, "a.csv")
    put(tmp_path, "SHA256SUMS", "# made by hand\nx  a.csv\n" + (tmp_path / "SHA256SUMS").read_text())
    assert offenders(tmp_path) == ["SHA256SUMS line 2: not a hash and a name as sha256sum writes them"]


def record(a, b):
    bits = [[value >> place & 1 for place in range(4)] for value in (a, b, a + b)]
    return serialize({FEATURE_A: bits[0][:3], FEATURE_B: bits[1][:3], FEATURE_SUM: bits[2], FEATURE_LENGTH: [3]})


@pytest.fixture(params=["pairs.csv", "pairs.tfrecord", "pairs.tfrecord.gz", "SHA256SUMS"])
def damaged(request, tmp_path):
    """The folder of a span, the path of one of its files, and every content that a cut or a flipped bit gives it."""
    put(tmp_path, "pairs.csv", "a,b\n1,2\n12,13\n")
    with tf.io.TFRecordWriter(str(tmp_path / "pairs.tfrecord")) as writer:
        writer.write(record(5, 6))
        writer.write(record(6, 6))
    plain = (tmp_path / "pairs.tfrecord").read_bytes()
    # Two gzip files that were joined.
    halves = plain[: len(plain) // 2], plain[len(plain) // 2 :]
    (tmp_path / "pairs.tfrecord.gz").write_bytes(b"".join(gzip.compress(half, mtime=0) for half in halves))
    add_sums(tmp_path, "pairs.csv", "pairs.tfrecord", "pairs.tfrecord.gz")
    whole = (tmp_path / request.param).read_bytes()
    cuts = [whole[:size] for size in range(0, len(whole), 7 if request.param == "SHA256SUMS" else 1)]
    flips = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 17)]
    return tmp_path, tmp_path / request.param, [*cuts, *flips, whole[:-1]]


def test_no_damaged_file_is_accepted_with_other_content(damaged):
    folder, path, contents = damaged
    right = span_reader.read(folder, DATA)
    assert (right.refused, right.pairs.total()) == (0, 6)
    accepted = 0
    for content in contents:
        path.write_bytes(content)
        found = span_reader.read(folder, DATA)
        if not found.refused:
            assert found.records == right.records
            accepted += 1
    # SHA256SUMS means the same without its last newline.
    assert accepted == (1 if path.name == "SHA256SUMS" else 0)
