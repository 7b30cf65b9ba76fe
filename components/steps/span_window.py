"""SpanWindow: merges the spans that a run trains on into one artifact without repeated pairs, on Beam.

A pair in several spans is taken from the latest. Files and their order depend only on the records, not on the workers.
"""

import os
import zlib
from collections.abc import Iterable, Iterator

import apache_beam as beam
from tfx.components.util import examples_utils
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.data import scratch
from components.data.shards import shard_path, split_files
from components.data.tf_examples import CorruptFile, pair_key, parse, read_records, write_records
from components.errors import BitsumError
from components.progress import report
from components.properties import SPAN, SPAN_DATE, SPANS, SPLITS_KEY
from components.task.addition import FEATURE_A, FEATURE_B

# The splits for training; the long split is for the evaluation, which uses one span.
SPLITS = ("train", "eval")

Aged = tuple[int, bytes]  # age in spans, and the record


@component(use_beam=True)
def SpanWindow(
    examples: InputArtifact[list[standard_artifacts.Examples]],
    window: OutputArtifact[standard_artifacts.Examples],
    shards: Parameter[int],
    code: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Write the records of `examples`, one artifact per span, each pair once; `code` is a hash of the code, for TFX's
    cache."""
    # The metadata store does not keep the order of the artifacts in an input.
    examples = sorted(examples, key=lambda artifact: artifact.get_int_custom_property(SPAN), reverse=True)
    spans = [artifact.get_int_custom_property(SPAN) for artifact in examples]
    uris = [artifact.uri for artifact in examples]
    with scratch.folder(window.uri) as beside, beam_pipeline as pipeline:
        for split in SPLITS:
            _ = pipeline | f"Window_{split}" >> WriteWindow(uris, split, window.uri, shards, beside)
    window.split_names = artifact_utils.encode_split_names(list(SPLITS))
    window.span = spans[0]
    window.set_int_custom_property(SPAN, spans[0])
    window.set_string_custom_property(SPANS, ",".join(map(str, spans)))
    window.set_string_custom_property(SPLITS_KEY, examples[0].get_string_custom_property(SPLITS_KEY))
    examples_utils.set_payload_format(window, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(window, "tfrecords_gzip")
    names = [
        artifact.get_string_custom_property(SPAN_DATE) or str(span)
        for artifact, span in zip(examples, spans, strict=True)
    ]
    report("window", spans=len(spans), first=names[-1], last=names[0])


class WriteWindow(beam.PTransform):
    """Pipeline -> the paths of a split's files below `output`, made from the examples in `uris`; each is written in the
    folder `beside` and then moved."""

    def __init__(self, uris: list[str], split: str, output: str, shards: int, beside: str):
        super().__init__()
        self._uris, self._split, self._output, self._shards, self._beside = uris, split, output, shards, beside

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Apply the transform."""
        files = [(age, uri, file) for age, uri in enumerate(self._uris) for file in split_files(uri, self._split)]
        return (
            pipeline
            | "Files" >> beam.Create(files)
            | "SpreadFiles" >> beam.Reshuffle()
            | "ReadFile" >> beam.FlatMapTuple(read_keyed)
            | "GroupByPair" >> beam.GroupByKey()
            | "TakeLatest" >> beam.MapTuple(lambda key, aged: (shard_of(key, self._shards), (key, min(aged)[1])))
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShard" >> beam.MapTuple(self._write)
        )

    def _write(self, shard: int, records: Iterable[tuple[bytes, bytes]]) -> str:
        path = shard_path(self._output, self._split, shard, self._shards)
        scratch.write(
            self._beside, path, lambda written: write_records(written, (record for _, record in sorted(records)))
        )
        return path


def read_keyed(age: int, uri: str, file: str) -> Iterator[tuple[bytes, Aged]]:
    """The records of a file, keyed by the digest of their pair, each with the age of its span.

    Raises:
        BitsumError: the file of an earlier blessed span is damaged.
    """
    try:
        for raw in read_records(os.path.join(uri, file)):
            features = parse(raw)
            yield pair_key(features[FEATURE_A], features[FEATURE_B]), (age, raw)
    except (CorruptFile, ValueError, KeyError) as error:
        raise BitsumError(
            f"cannot read {os.path.join(uri, file)}, which was blessed: {error}; run that span again"
        ) from error


def shard_of(key: bytes, shards: int) -> int:
    """The shard of the pair with this digest."""
    return zlib.crc32(key) % shards
