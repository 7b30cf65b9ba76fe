"""The prober's questions: pairs of numbers from the data, with the outputs of a right model."""

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from components.formats import strict_protos, tfrecords
from components.task import addition, prefix_scan
from components.task.transducer import Transducer
from serving import protos


@dataclasses.dataclass(frozen=True)
class Question:
    """Operands of `length` bits, their record if any, and whether only signatures with a state get them."""

    a: int
    b: int
    length: int
    serialized: bytes = b""
    streamed: bool = False

    def example(self) -> bytes:
        """The serialized tf.Example for serving_default."""
        return self.serialized or _example(self.a, self.b, self.length)

    def outputs(self, task: Transducer, count: int) -> int:
        """The right first `count` outputs, as the bits of an integer; zeros follow the numbers."""
        return prefix_scan.outputs(task, self.a, self.b, count)


def spread(paths: Sequence[str], count: int, seed: int = 0) -> list[Question]:
    """Up to `count` questions, evenly from the files and from all parts of each, always the same for equal arguments.

    Raises:
        CorruptRecords: a file cannot be read, or a record is not an example with two bitstrings of one length.
    """
    samples = [_sample(path, count, random.Random(f"{seed}/{index}")) for index, path in enumerate(paths)]
    taken: list[tuple[str, int, bytes]] = []
    for place in range(count):
        taken += [sample[place] for sample in samples if place < len(sample)]
        if len(taken) >= count:
            break
    return [_question(*item) for item in taken[:count]]


def _sample(path: str, count: int, draw: random.Random) -> list[tuple[str, int, bytes]]:
    """A sample of at most `count` records of a file in one pass (algorithm R, Vitter 1985)."""
    sample: list[tuple[str, int, bytes]] = []
    for number, record in enumerate(tfrecords.read(path)):
        if len(sample) < count:
            sample.append((path, number, record))
        elif (place := draw.randrange(number + 1)) < count:
            sample[place] = (path, number, record)
    draw.shuffle(sample)
    return sample


def _question(path: str, number: int, record: bytes) -> Question:
    try:
        features = strict_protos.parse(protos.load().example.Example, record).features.feature
        a, b = (list(_bits(features, name)) for name in (addition.FEATURE_A, addition.FEATURE_B))
        if len(a) != len(b) or not a:
            raise ValueError(f"operands of {len(a)} and {len(b)} bits")
        return Question(addition.from_bits(a), addition.from_bits(b), len(a), record)
    except (DecodeError, ValueError) as error:
        raise tfrecords.CorruptRecords(f"{path}, record {number}, is not an example of a pair: {error}") from error


def _example(a: int, b: int, length: int) -> bytes:
    example = protos.load().example.Example()
    for name, number in ((addition.FEATURE_A, a), (addition.FEATURE_B, b)):
        example.features.feature[name].int64_list.value.extend(addition.to_bits(number, length))
    return example.SerializeToString(deterministic=True)


def _bits(features: Mapping[str, Any], name: str) -> Iterator[int]:
    if name not in features:
        raise ValueError(f"feature {name} is missing")
    return iter(features[name].int64_list.value)
