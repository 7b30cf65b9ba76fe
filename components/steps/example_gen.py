"""BitstringExampleGen: makes the splits of pairs and their sums as TFRecords of tf.Example, on Beam.

Each element of the Beam pipeline is one file, and whichever worker gets it makes all of it: there is no shuffle, and
the files are the same, byte for byte, however many workers there are.
"""

from collections.abc import Iterator

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from tfx.components.util import examples_utils
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.data import sampling, scratch
from components.data.shards import shard_path
from components.data.tf_examples import serialize_batch, write_records
from components.progress import report
from components.settings import Data

SPAN_PROPERTY = "span"
SPLITS_PROPERTY = "splits_key"

# Bits of each operand that are in memory at the same time.
_CHUNK_BITS = 1 << 22


@component(use_beam=True)
def BitstringExampleGen(
    examples: OutputArtifact[standard_artifacts.Examples],
    data: Parameter[str],
    code: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Write the splits of `data`, the JSON of a settings.Data.

    `code` is a hash of the code that makes the data; TFX compares it, like every parameter, when it looks into its
    cache.
    """
    section = Data.from_json(data)
    splits = sampling.splits(section)
    counts = {split: sampling.split_size(section, split) for split in splits}
    report("generate", step=0, of=sum(counts.values()))
    with scratch.folder(examples.uri) as beside, beam_pipeline as pipeline:
        _ = pipeline | "GenerateExamples" >> GenerateExamples(section, examples.uri, beside)
    describe(examples, section)
    report("generate", step=sum(counts.values()), of=sum(counts.values()), **counts)


def describe(examples: standard_artifacts.Examples, data: Data) -> None:
    """Write into the artifact which splits it has, which span it is, and what decides in which split a pair is."""
    examples.split_names = artifact_utils.encode_split_names(list(sampling.splits(data)))
    examples.span = data.span
    examples.set_int_custom_property(SPAN_PROPERTY, data.span)
    examples.set_string_custom_property(SPLITS_PROPERTY, sampling.splits_key(data))
    examples_utils.set_payload_format(examples, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")


def shard_records(data: Data, split: str, shard: int) -> Iterator[bytes]:
    """The serialized tf.Examples of a shard, in their order."""
    size = sampling.split_size(data, split)
    start, stop = (size * bound // data.shards for bound in (shard, shard + 1))
    rows = max(1, _CHUNK_BITS // (data.long_lengths[-1] if split == "long" else data.max_length))
    for first in range(start, stop, rows):
        last = min(stop, first + rows)
        chunk = np.empty(last - first, dtype=object)
        for batch in sampling.records(data, split, first, last):
            chunk[batch.positions - first] = serialize_batch(batch.a, batch.b, batch.total)
        yield from chunk


class GenerateExamples(beam.PTransform):
    """Pipeline -> the paths of the files that were written below `uri`; they are made in the folder `beside` and then
    moved."""

    def __init__(self, data: Data, uri: str, beside: str):
        super().__init__()
        self._data, self._uri, self._beside = data, uri, beside

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        shards = [(split, shard) for split in sampling.splits(self._data) for shard in range(self._data.shards)]
        return (
            pipeline
            | "Shards" >> beam.Create(shards)
            | "SpreadShards" >> beam.Reshuffle()
            | "WriteShard" >> beam.ParDo(_WriteShard(self._data, self._uri, self._beside))
        )


class _WriteShard(beam.DoFn):
    """(split, shard) -> the path of its file, which appears whole or not at all."""

    def __init__(self, data: Data, uri: str, beside: str):
        self._data, self._uri, self._beside = data, uri, beside

    def process(self, element: tuple[str, int]) -> Iterator[str]:
        split, shard = element
        path = shard_path(self._uri, split, shard, self._data.shards)
        count = scratch.write(
            self._beside, path, lambda written: write_records(written, shard_records(self._data, split, shard))
        )
        Metrics.counter("generate", split).inc(count)
        report("generate", split=split, shard=shard + 1, shards=self._data.shards, records=count)
        yield path
