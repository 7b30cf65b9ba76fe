"""SpanImporter: the same artifact as the generator's, refused spans leave their report, and a span may not change
meanwhile."""

import datetime
import io
import json
import os

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.data import sampling, span_folders, span_reader
from components.data.shards import shard_path
from components.data.tf_examples import read_records
from components.errors import BitsumError, Refusal
from components.progress import Progress
from components.settings import Data
from components.steps.span_importer import SpanImporter

DATA = Data(span=4, max_length=4, long_lengths=(8,), long_examples=5, train_examples=20, eval_examples=20)

HELD_OUT = [(a, b) for a in range(8) for b in range(8) if sampling.splits_of(DATA, [(a, b)]) == ["eval"]][:2]
UNTERMINATED = "pairs.csv line 258: the last line has no newline, so the file may have been cut inside a number"


def run(folder, text, data=DATA, fingerprint=None, missing_newline="warn"):
    source = folder / "span-4"
    source.mkdir(exist_ok=True)
    (source / "pairs.csv").write_text(text)
    artifact = standard_artifacts.Examples()
    artifact.uri = str(folder / "examples")
    properties = {
        "data": data.to_json(),
        "source": str(folder),
        "fingerprint": fingerprint or span_folders.fingerprint(source),
        "missing_newline": missing_newline,
        "quarantine_folder": str(folder / "quarantine" / "span-4"),
        "code": "hash",
    }
    SpanImporter.EXECUTOR_SPEC.executor_class().Do({}, {"examples": [artifact]}, properties)
    return artifact


def every_pair():
    return "a,b,sum\n" + "".join(f"{a},{b},{a + b}\n" for a in range(16) for b in range(16))


def test_the_artifact_is_as_the_generator_makes_it(tmp_path):
    found = run(tmp_path, every_pair())
    assert (json.loads(found.split_names), found.span) == (["train", "eval", "long"], 4)
    assert found.get_int_custom_property("span") == 4
    assert found.get_string_custom_property("splits_key") == sampling.splits_key(DATA)
    expected = span_reader.read(tmp_path / "span-4", DATA).records
    for split, records in expected.items():
        assert sorted(os.listdir(f"{found.uri}/Split-{split}")) == [
            f"data_tfrecord-0000{shard}-of-00002.gz" for shard in (0, 1)
        ]
        assert [raw for shard in (0, 1) for raw in read_records(shard_path(found.uri, split, shard, 2))] == records


def test_an_invalid_span_is_refused_and_its_report_stays(tmp_path):
    with pytest.raises(Refusal) as caught:
        run(tmp_path, "1,2\n" + "13,29,43\n" * 5)
    assert str(caught.value) == (
        f"import refused: span 4 in {tmp_path}/span-4: "
        + " | ".join(f"pairs.csv line {line}: wrong sum: 13 + 29 = 43, 42 is right" for line in (2, 3, 4))
        + f" and 2 more; the report is in {tmp_path}/quarantine/span-4"
    )
    report = json.loads((tmp_path / "quarantine" / "span-4" / "report.json").read_text())
    assert (report["gate"], len(report["reasons"]), report["source"]) == ("import", 5, f"{tmp_path}/span-4")
    lines = (tmp_path / "quarantine" / "span-4" / "offenders.csv").read_text().splitlines()
    assert lines == [f"pairs.csv,line {line},13,29,43" for line in range(2, 7)]
    assert not (tmp_path / "examples").exists()


def test_a_span_that_changes_during_the_import_is_not_imported(tmp_path):
    with pytest.raises(
        BitsumError, match=r"span 4 changed while it was read: .*; nothing was imported, run the span again"
    ) as caught:
        run(tmp_path, every_pair(), fingerprint="what it was")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "examples").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n", "the files in {} hold none"),
        ("255,1\n1,16\n", "each of the 2 pairs in {} has a number longer than data.max_length = 4 bits; raise it"),
        (
            "255,1\n" + "".join(f"{a},{b}\n" for a, b in HELD_OUT),
            "of the 3 pairs in {}, 1 have a number longer than data.max_length = 4 bits, and 2 are held out for eval",
        ),
    ],
)
def test_a_span_with_nothing_to_train_on_says_why(tmp_path, text, why):
    with pytest.raises(BitsumError) as caught:
        run(tmp_path, text)
    assert str(caught.value) == f"span 4 has no pairs to train on: {why.format(tmp_path / 'span-4')}"


def test_bad_records_stay_in_the_quarantine(tmp_path):
    (tmp_path / "span-4").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "span-4" / "mine.tfrecord")) as writer:
        writer.write(b"no example")
    with pytest.raises(Refusal, match=r"mine\.tfrecord record 0: not parsable"):
        run(tmp_path, every_pair())
    place = tmp_path / "quarantine" / "span-4"
    assert list(read_records(str(place / "offenders.tfrecord.gz"))) == [b"no example"]
    assert json.loads((place / "report.json").read_text())["files"] == ["offenders.csv", "offenders.tfrecord.gz"]


def test_what_the_report_leaves_out_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(span_reader, "MAX_OFFENDERS", 4)
    with pytest.raises(Refusal, match=r"line 1: .* \| .*line 3: .* and 5 more; the report"):
        run(tmp_path, "1,1,1\n" * 8)
    report = json.loads((tmp_path / "quarantine" / "span-4" / "report.json").read_text())
    assert len(report["reasons"]) == 5 and report["reasons"][-1] == "and 4 more"


def test_the_run_tells_what_it_read_ignored_and_doubts(tmp_path):
    (tmp_path / "span-4").mkdir()
    (tmp_path / "span-4" / "Thumbs.db").touch()
    terminal = io.StringIO()
    with Progress(terminal) as progress:
        progress.begin("generate")
        found = run(tmp_path, every_pair() + "1,1,2")
    counts, ignored, warning = terminal.getvalue().splitlines()
    assert (
        counts.startswith(f"    generate: {tmp_path}/span-4: 257 pairs, ")
        and " repeat another or a generated one; " in counts
    )
    assert ignored == "    generate: ignored: Thumbs.db"
    assert warning == f"    generate: {UNTERMINATED}"
    assert found.get_string_custom_property("notes") == f"ignored: Thumbs.db\n{UNTERMINATED}"


def test_a_missing_newline_can_be_refused(tmp_path):
    with pytest.raises(Refusal, match=UNTERMINATED):
        run(tmp_path, every_pair() + "1,1,2", missing_newline="refuse")


def test_a_date_is_recorded_and_named(tmp_path):
    day = Data.of(DATA.given() | {"span": datetime.date(1970, 1, 5)})
    found = run(tmp_path, every_pair(), day)
    assert (found.span, found.get_string_custom_property("span_date")) == (4, "1970-01-05")
    with pytest.raises(Refusal, match="import refused: span 1970-01-05 in "):
        run(tmp_path, "x,1\n", day)
