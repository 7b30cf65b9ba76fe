"""A user's own pairs: the split of each, refusals with the line, and that no held-out pair is trained
on."""

import gzip
import hashlib

import pytest
import tensorflow as tf

from components.data import sampling, span_folders, span_reader
from components.data.tf_examples import parse, serialize
from components.errors import BitsumError
from components.settings import Data
from components.task import record_checks
from components.task.addition import FEATURE_A, FEATURE_B, FEATURE_LENGTH, FEATURE_SUM, from_bits, to_bits
from components.task.transducer import ADDITION

pytestmark = pytest.mark.fast

DATA = Data(max_length=4, long_lengths=(8, 16), long_examples=5, train_examples=20, eval_examples=20)


def pairs_of(records):
    features = [parse(record) for record in records]
    return [(from_bits(one[FEATURE_A]), from_bits(one[FEATURE_B])) for one in features]


def generated(split):
    found = []
    for batch in sampling.records(DATA, split, 0, sampling.split_size(DATA, split)):
        found += [(from_bits(a.tolist()), from_bits(b.tolist())) for a, b in zip(batch.a, batch.b, strict=True)]
    return found


def record(a, b, total, length):
    return serialize(
        {FEATURE_A: to_bits(a, length), FEATURE_B: to_bits(b, length), FEATURE_SUM: total, FEATURE_LENGTH: [length]}
    )


def read(folder, text, name="pairs.csv"):
    (folder / name).write_text(text)
    return span_reader.read(folder, DATA)


def training_pairs():
    """The pairs of four bits that generated data have in the split for training."""
    every = [(a, b) for a in range(16) for b in range(16)]
    return [pair for pair, split in zip(every, sampling.splits_of(DATA, every), strict=True) if split == "train"]


def test_every_pair_goes_into_the_split_that_it_has_in_generated_data(tmp_path):
    every = [(a, b) for a in range(16) for b in range(16)]
    found = read(tmp_path, "a,b\n" + "".join(f"{a},{b}\n" for a, b in every))
    train = pairs_of(found.records["train"])
    assert sorted(train) == sorted(training_pairs())
    held_out = pairs_of(found.records["eval"])
    assert len(held_out) == len(set(held_out)) and set(generated("eval")) <= set(held_out)
    assert set(train).isdisjoint(held_out) and set(train) | set(held_out) == set(every)
    assert found.offenders == []
    assert all(
        record_checks.problem_of(parse(raw), ADDITION) is None for records in found.records.values() for raw in records
    )


def test_a_pair_is_written_with_its_own_bits_and_a_long_one_with_the_next_evaluated_length(tmp_path):
    found = read(tmp_path, "a,b,sum\n5,2,7\n0x1ff,1,512\n")
    assert pairs_of(found.records["long"])[:-1] == generated("long")
    long = parse(found.records["long"][-1])
    assert (from_bits(long[FEATURE_A]), long[FEATURE_LENGTH], from_bits(long[FEATURE_SUM])) == (511, [16], 512)
    [short] = [
        one for one in map(parse, found.records["train"] + found.records["eval"]) if from_bits(one[FEATURE_SUM]) == 7
    ][:1]
    assert short[FEATURE_LENGTH] in ([3], [4])


def test_a_repeated_pair_is_taken_once(tmp_path):
    train = training_pairs()[0]
    held_out = generated("eval")[0]
    text = "".join(f"{a},{b}\n" for a, b in (train, held_out, train))
    found = read(tmp_path, text)
    assert pairs_of(found.records["train"]) == [train]
    assert pairs_of(found.records["eval"]) == generated("eval")
    assert found.repeated == 2


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("13,29,43", "wrong sum: 13 + 29 = 43, 42 is right"),
        ("13", "1 values, not a,b or a,b,result"),
        ("13,x", "'x' is not an integer: write decimal digits, 0x and hexadecimal digits, or 0b and binary digits"),
        ("-1,2", "-1 is negative: a number must be a non-negative integer"),
        ("1.5,2", "'1.5' is not an integer: write decimal digits, 0x and hexadecimal digits, or 0b and binary digits"),
        ("65536,1", "a number of 17 bits: the longest evaluated length is 16 (data.long_lengths)"),
        ("1,2,three", "wrong sum: 1 + 2 = three, 3 is right"),
        (f"{'9' * 5000},1", "a number of 16610 bits: the longest evaluated length is 16 (data.long_lengths)"),
        (
            f"0x{'f' * 4000},1,5",
            "wrong sum: 0xffffffffffffffffff...ffffffffff (4002 characters) + 1 = 5,"
            " 0x100000000000000000...0000000000 (16001 bits) is right",
        ),
    ],
)
def test_an_invalid_line_is_named(tmp_path, line, what):
    found = read(tmp_path, f"a,b\n1,2\n\n{line}\n")
    assert [str(offender) for offender in found.offenders] == [f"pairs.csv line 4: {what}"]


def test_quotes_are_read_as_csv_or_not_at_all(tmp_path):
    found = read(tmp_path, '\n"a","b"\n"5","2"\n')
    assert found.offenders == [] and (5, 2) in pairs_of(found.records["train"] + found.records["eval"])
    [offender] = read(tmp_path, '1,"2"3\n').offenders
    assert str(offender).startswith("pairs.csv line 1: not a line of CSV: ',' expected after")


def test_a_record_is_at_most_as_wide_as_the_longest_evaluated_length(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        writer.write(record(1, 2, [1, 1] + [0] * 16, 17))
    [offender] = span_reader.read(tmp_path, DATA).offenders
    assert str(offender) == (
        "a.tfrecord record 0: a number of 17 bits: the longest evaluated length is 16 (data.long_lengths)"
    )


def test_results_of_other_tasks(tmp_path):
    sizes = {"max_length": 6, "long_lengths": (8,), "long_examples": 5, "train_examples": 9, "eval_examples": 9}
    (tmp_path / "pairs.csv").write_text("13,29,-16\n29,13,16\n1,2,3\n")
    found = span_reader.read(tmp_path, Data(task="subtraction", **sizes))
    assert [offender.place for offender in found.offenders] == ["line 3"]
    (tmp_path / "pairs.csv").write_text("13,29,false\n29,13,True\n1,2,1\n2,1,1\n1,3,0\n2,3,2\n")
    found = span_reader.read(tmp_path, Data(task="comparison", **sizes))
    assert [offender.place for offender in found.offenders] == ["line 3", "line 6"]


def test_tfrecords_are_taken_unchanged_and_every_bad_record_is_named(tmp_path):
    train = training_pairs()[:2]
    good = [record(a, b, to_bits(a + b, 5), 4) for a, b in train]
    wrong = record(*train[0], [0] * 5, 4)
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord.gz"), "GZIP") as writer:
        for raw in (good[0], b"no example", good[1], good[0], wrong):
            writer.write(raw)
    found = span_reader.read(tmp_path, DATA)
    assert found.records["train"] == good
    assert (found.refused, found.repeated) == (2, 1)
    first, second = found.offenders
    assert str(first) == "a.tfrecord.gz record 1: not parsable: not a tf.Example (10 bytes)"
    assert str(second).startswith("a.tfrecord.gz record 4: wrong sum: sum[")
    assert (first.record, second.record) == (b"no example", wrong)


def test_damage_is_named_by_the_record_where_it_begins(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for a, b in training_pairs()[:3]:
            writer.write(record(a, b, to_bits(a + b, 5), 4))
    content = bytearray((tmp_path / "a.tfrecord").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.tfrecord").write_bytes(content)
    (tmp_path / "b.tfrecord.gz").write_bytes(gzip.compress(b"nothing")[:-5])
    (tmp_path / "c.tfrecord.gz").touch()
    (tmp_path / "notes.txt").write_text("x")
    rest = "; the records from there on are unknown"
    assert [str(offender) for offender in span_reader.read(tmp_path, DATA).offenders] == [
        f"a.tfrecord record 1: the file is damaged there: the checksum of the data does not match{rest}",
        "b.tfrecord.gz record 0: the file is damaged there: "
        f"Compressed file ended before the end-of-stream marker was reached{rest}",
        f"c.tfrecord.gz record 0: the file is damaged there: it does not begin as a gzip file{rest}",
        "notes.txt: neither CSV (*.csv) nor TFRecords (*tfrecord*)",
    ]


def test_every_bad_line_is_named_and_bytes_by_their_offset_in_the_file(tmp_path):
    lines = [b"\xef\xbb\xbfa,b", "é,1".encode(), b"5,2", b'"1,2', b"1,\xe9", b"", b"\xff,1", b"1,2,4", b"3,1"]
    content = b"\r\n".join(lines) + b"\r\n"
    (tmp_path / "pairs.csv").write_bytes(content)
    found = span_reader.read(tmp_path, DATA)
    assert [str(offender) for offender in found.offenders] == [
        "pairs.csv line 2: 'é' is not an integer: write decimal digits, 0x and hexadecimal digits, or 0b and binary "
        "digits",
        "pairs.csv line 4: not a line of CSV: unexpected end of data",
        f"pairs.csv line 5: not UTF-8: byte 0xe9 at offset {content.index(bytes([0xE9, 13]))} of the file",
        f"pairs.csv line 7: not UTF-8: byte 0xff at offset {content.index(255)} of the file",
        "pairs.csv line 8: wrong sum: 1 + 2 = 4, 3 is right",
    ]
    assert found.pairs.total() == 2 and not found.unterminated


def test_a_far_byte_has_the_offset_of_the_file(tmp_path):
    # Python decodes files in blocks.
    content = b"1,2\n" * 100_000 + "é,1\n".encode() + b"1,\x80\n"
    (tmp_path / "pairs.csv").write_bytes(content)
    assert str(span_reader.read(tmp_path, DATA).offenders[1]) == (
        f"pairs.csv line 100002: not UTF-8: byte 0x80 at offset {len(content) - 2} of the file"
    )


def test_offenders_beyond_the_limit_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(span_reader, "MAX_OFFENDERS", 4)
    (tmp_path / "SHA256SUMS").touch()
    found = read(tmp_path, "x,1\n" * 10)
    assert [offender.place for offender in found.offenders] == ["", "line 1", "line 2", "line 3"]
    assert found.refused == 11


@pytest.mark.parametrize("text", ["1,2", "1,2\n3,1", "1,2\r\n3,1", "a,b", "1,2\n "])
def test_a_last_line_without_newline_is_reported(tmp_path, text):
    found = read(tmp_path, text)
    number = text.count("\n") + 1
    assert [str(line) for line in found.unterminated] == [
        f"pairs.csv line {number}: the last line has no newline, so the file may have been cut inside a number"
    ]
    assert found.refused == 0
    assert not read(tmp_path, text + "\n").unterminated and not read(tmp_path, text + "\r\n").unterminated


def test_files_without_a_pair_are_named(tmp_path):
    for name, content in {"b.csv": b"a,b\n", "c.tfrecord": b"", "d.csv": b"x\n", "sub/e.csv": b""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert read(tmp_path, "1,2\n").empty == ["b.csv", "c.tfrecord", "sub/e.csv"]


def test_an_empty_span_is_an_error(tmp_path):
    with pytest.raises(BitsumError, match="the span is empty"):
        span_reader.read(tmp_path, DATA)


def test_the_fingerprint_is_of_what_was_read(tmp_path, monkeypatch):
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'1,2' + chr(10).encode()).hexdigest()}  pairs.csv\n")
    found = read(tmp_path, "1,2\n")
    assert (found.fingerprint, found.refused) == (span_folders.fingerprint(tmp_path), 0)
    before, read_rows = found.fingerprint, span_reader._rows

    def restored_after_reading(file, name, *others):
        (tmp_path / name).write_text("1,3\n")
        yield from read_rows(file, name, *others)
        (tmp_path / name).write_text("1,2\n")

    monkeypatch.setattr(span_reader, "_rows", restored_after_reading)
    found = span_reader.read(tmp_path, DATA)
    assert span_folders.fingerprint(tmp_path) == before != found.fingerprint
    assert "content differs from its SHA-256" in str(found.offenders[0])

    def adds_a_file(file, name, *others):
        yield from read_rows(file, name, *others)
        (tmp_path / "later.csv").touch()

    monkeypatch.setattr(span_reader, "_rows", adds_a_file)
    assert span_reader.read(tmp_path, DATA).fingerprint != before
    assert {path.name for path in span_folders.listing(tmp_path).files} == {"pairs.csv", "later.csv"}
