"""SpanImporter: the same artifact as the generator's, refused spans leave their report, and a span may not change
meanwhile."""

import json
import os

import pytest
from tfx.types import standard_artifacts

from components.data import sampling, span_folders, span_reader
from components.data.shards import shard_path
from components.data.tf_examples import read_records
from components.errors import BitsumError, Refusal
from components.settings import Data
from components.steps.span_importer import SpanImporter

DATA = Data(span=4, max_length=4, long_lengths=(8,), long_examples=5, train_examples=20, eval_examples=20)


def run(folder, text, data=DATA, fingerprint=None):
    source = folder / "span-4"
    source.mkdir(exist_ok=True)
    (source / "pairs.csv").write_text(text)
    artifact = standard_artifacts.Examples()
    artifact.uri = str(folder / "examples")
    properties = {
        "data": data.to_json(),
        "source": str(folder),
        "fingerprint": fingerprint or span_folders.fingerprint(source),
        "quarantine_folder": str(folder / "quarantine"),
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
    assert lines == [f"pairs.csv,{line},13,29,43" for line in range(2, 7)]
    assert not (tmp_path / "examples").exists()


def test_a_span_that_changes_during_the_import_is_not_imported(tmp_path):
    with pytest.raises(
        BitsumError, match=r"span 4 changed while it was read: .*; nothing was imported, run the span again"
    ) as caught:
        run(tmp_path, every_pair(), fingerprint="what it was")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "examples").exists()


def test_a_span_with_nothing_to_train_on_is_empty(tmp_path):
    with pytest.raises(BitsumError, match=r"span 4 has no pairs to train on: none in .* belongs to the train split"):
        run(tmp_path, "255,1\n")
