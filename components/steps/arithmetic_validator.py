"""ArithmeticValidator: checks every record of an Examples artifact against its task, addition or another, on Beam.

The step never fails because of the data: it writes the anomalies and sets the offending records aside, and the data
gate decides. It reads the files itself, because anomalies name records by file and index.
"""

import collections
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import tensorflow as tf
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts

from components.data import scratch
from components.data.shards import split_files
from components.data.tf_examples import CorruptFile, pair_key, parse, problem_of_record, read_records, write_records
from components.progress import report
from components.properties import ANOMALIES_FILE
from components.steps.artifacts import ArithmeticAnomalies
from components.task import record_checks
from components.task.addition import FEATURE_A, FEATURE_B
from components.task.record_checks import Problem
from components.task.transducer import TASKS, Transducer

QUARANTINE_FILE = "quarantine.tfrecord.gz"
OFFENDERS_NAMED = 20

_ANOMALIES = "anomalies"


class Place(NamedTuple):
    """The place of a record."""

    file: str  # relative to the artifact's folder, e.g. Split-train/data_tfrecord-00000-of-00002.gz
    record: int  # index from 0


Record = tuple[str, Place, bytes]  # its split, its place, its bytes


class Anomaly(NamedTuple):
    """An offending record; sorts by its place."""

    place: Place
    problem: Problem
    raw: bytes | None  # None if there is no record to set aside


@component(use_beam=True)
def ArithmeticValidator(
    examples: InputArtifact[standard_artifacts.Examples],
    anomalies: OutputArtifact[ArithmeticAnomalies],
    task: Parameter[str],
    code: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Write the anomalies of `examples` of `task`; `code` is a hash of the code, for TFX's cache."""
    splits = artifact_utils.decode_split_names(examples.split_names)
    report("check sums", splits=len(splits))
    tf.io.gfile.makedirs(anomalies.uri)
    with beam_pipeline as pipeline:
        _ = pipeline | "ValidateArithmetic" >> ValidateArithmetic(examples.uri, splits, anomalies.uri, TASKS[task])
    anomalies.span = examples.span


class ValidateArithmetic(beam.PTransform):
    """Pipeline -> the path of the anomalies file for the records of `task` in the `splits` of `uri`."""

    def __init__(self, uri: str, splits: Sequence[str], output: str, task: Transducer):
        super().__init__()
        self._uri, self._splits, self._output, self._task = uri, list(splits), output, task

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Apply the transform."""
        read = (
            pipeline
            | "Files"
            >> beam.Create([(split, file) for split in self._splits for file in split_files(self._uri, split)])
            | "SpreadFiles" >> beam.Reshuffle()
            | "ReadFile" >> beam.ParDo(_ReadFile(self._uri)).with_outputs(_ANOMALIES, main="records")
        )
        checked = read.records | "CheckSum" >> beam.ParDo(_CheckSum(self._task)).with_outputs(_ANOMALIES, main="pairs")
        repeated = (
            checked.pairs
            | "GroupByPair" >> beam.GroupByKey()
            | "FindRepeated" >> beam.FlatMap(lambda group: repeated_pairs(group[1]))
        )
        anomalies = (read[_ANOMALIES], checked[_ANOMALIES], repeated) | "AllAnomalies" >> beam.Flatten()
        counts = (
            read.records
            | "SplitOfRecord" >> beam.Map(lambda record: record[0])
            | "CountRecords" >> beam.combiners.Count.PerElement()
        )
        return (
            pipeline
            | "Output" >> beam.Create([self._output])
            | "WriteAnomalies"
            >> beam.Map(write_anomalies, self._splits, beam.pvalue.AsDict(counts), beam.pvalue.AsList(anomalies))
        )


def repeated_pairs(occurrences: Iterable[Record]) -> Iterator[Anomaly]:
    """The anomalies of records with the same pair: all but the first by place."""
    (split, place, _), *others = sorted(occurrences, key=lambda occurrence: occurrence[1])
    for other_split, other_place, raw in others:
        features = parse(raw)
        pair = record_checks.described(features[FEATURE_A], features[FEATURE_B])
        leaked = other_split != split
        kind = record_checks.LEAKED_PAIR if leaked else record_checks.DUPLICATE_PAIR
        where = f"split {split!r} too" if leaked else "the same split"
        yield Anomaly(
            other_place, Problem(kind, f"the pair {pair} is in {where}: {place.file} record {place.record}"), raw
        )


def write_anomalies(output: str, splits: Sequence[str], counts: dict[str, int], anomalies: Iterable[Anomaly]) -> str:
    """Write both files of an ArithmeticAnomalies artifact to `output`, independent of the order of `anomalies`."""
    empty = [
        Anomaly(
            Place(f"Split-{split}", 0),
            Problem(record_checks.EMPTY_SPLIT, f"split {split!r} has no readable record"),
            None,
        )
        for split in splits
        if not counts.get(split)
    ]
    ordered = sorted([*anomalies, *empty])
    content = {
        "records": {split: counts.get(split, 0) for split in splits},
        "anomalies": dict(sorted(collections.Counter(anomaly.problem.kind for anomaly in ordered).items())),
        "offenders": [
            [*anomaly.place, f"{anomaly.problem.kind}: {anomaly.problem.what}"] for anomaly in ordered[:OFFENDERS_NAMED]
        ],
    }
    quarantine, path = os.path.join(output, QUARANTINE_FILE), os.path.join(output, ANOMALIES_FILE)
    with scratch.folder(output) as beside:
        offending = (anomaly.raw for anomaly in ordered if anomaly.raw is not None)
        scratch.write(beside, quarantine, lambda written: write_records(written, offending))
        scratch.write_text(beside, path, json.dumps(content, indent=1) + "\n")
    return path


class _ReadFile(beam.DoFn):
    """(split, file) -> records; a damaged file gives an anomaly."""

    def __init__(self, uri: str):
        self._uri = uri

    def process(self, element: tuple[str, str]) -> Iterator[Record]:
        split, file = element
        count = 0
        try:
            for raw in read_records(os.path.join(self._uri, file)):
                yield split, Place(file, count), raw
                count += 1
        except CorruptFile as error:
            problem = Problem(record_checks.CORRUPT_FILE, f"unreadable after {count} records: {error}")
            yield beam.pvalue.TaggedOutput(_ANOMALIES, Anomaly(Place(file, count), problem, None))
        report("check sums", file=file, records=count)


class _CheckSum(beam.DoFn):
    """A record -> (digest of its pair, the record); an offending record gives an anomaly instead."""

    def __init__(self, task: Transducer):
        self._task = task

    def process(self, element: Record) -> Iterator[tuple[bytes, Record]]:
        _, place, raw = element
        problem, features = problem_of_record(raw, self._task)
        if problem:
            yield beam.pvalue.TaggedOutput(_ANOMALIES, Anomaly(place, problem, raw))
        else:
            yield pair_key(features[FEATURE_A], features[FEATURE_B]), element
