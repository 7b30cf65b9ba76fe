"""Checkpoints that no writer produces, with valid checksums, for `benchmarks.checkpoint_fuzz`.

Each tampering changes one thing of a checkpoint that TensorFlow wrote: an entry, a block, or a reference to it. Some
leave a valid checkpoint; some show other tensors to a reader that seeks than to one that reads from front to back.
"""

import dataclasses
import itertools
import pathlib
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from components.formats import crc32c
from components.formats import table as sstable
from components.savedmodel.checkpoint import OBJECT_GRAPH, checkpoint_key

_MAGIC = bytes.fromhex("57fb808b247547db")
_HEADER = b""
_GRAPH = OBJECT_GRAPH.encode()
_PAIRS = (("U_z", "U_r"), ("W_z", "W_h"), ("b_z", "b_r"))

Entries = Sequence[tuple[bytes, bytes]]


@dataclasses.dataclass
class Checkpoint:
    """The entries of an index, their data, and the layout of the table.

    cuts: numbers of entries after which a block ends. limits: keys of the index that are not those of the blocks' last
    entries. restarts: restart points that are not every `interval`-th entry, by number of the block; -1 is the index
    block. hidden: bytes between the last block and the meta index. tail: bytes after the first block's handle. long:
    varints of entries have an extra byte.
    """

    entries: list[tuple[bytes, bytes]]
    data: bytes
    interval: int = 16
    share: bool = True
    cuts: tuple[int, ...] = ()
    limits: dict[int, bytes] = dataclasses.field(default_factory=dict)
    restarts: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    gap: bytes = b""
    hidden: bytes = b""
    tail: bytes = b""
    padding: bytes = b""
    meta: Entries = ()
    kind: int = 0
    reverse: bool = False
    long: bool = False

    @classmethod
    def read(cls, model_dir: pathlib.Path) -> "Checkpoint":
        """The checkpoint of a SavedModel."""
        table, data = (
            (model_dir / "variables" / name).read_bytes()
            for name in ("variables.index", "variables.data-00000-of-00001")
        )
        return cls(list(sstable.read(table).items()), data)

    def write(self, model_dir: pathlib.Path) -> None:
        """Write the checkpoint to the folder `model_dir`."""
        (model_dir / "variables").mkdir(exist_ok=True)
        (model_dir / "variables" / "variables.index").write_bytes(self.table())
        (model_dir / "variables" / "variables.data-00000-of-00001").write_bytes(self.data)

    def table(self) -> bytes:
        """The bytes of the table."""
        bounds = [0, *self.cuts, len(self.entries)]
        parts = [self.entries[start:end] for start, end in itertools.pairwise(bounds)]
        table, places = bytearray(), {}
        for number in sorted(range(len(parts)), reverse=self.reverse):
            places[number] = _appended(table, self._block(parts[number], number), self.kind)
            table += self.gap
        table += self.hidden
        handles = _appended(table, block(self.meta))
        index = [
            (self.limits.get(number, after(part[-1][0]) if part else b"\xff"), places[number])
            for number, part in enumerate(parts)
        ]
        index[0] = (index[0][0], index[0][1] + self.tail)
        handles += _appended(table, block(index, 1, self.restarts.get(-1)))
        return bytes(table) + handles + self.padding + bytes(40 - len(handles + self.padding)) + _MAGIC

    def _block(self, entries: Entries, number: int) -> bytes:
        return block(entries, self.interval, self.restarts.get(number), self.share, self.long)

    def value(self, key: bytes) -> bytes:
        """The value of an entry."""
        return dict(self.entries)[key]

    def set(self, key: bytes, value: bytes) -> None:
        """Give the entry another value."""
        self.entries = [(name, value if name == key else old) for name, old in self.entries]

    def change(self, key: bytes, change: Callable[[Any], None]) -> None:
        """Change the BundleEntryProto of an entry."""
        from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

        entry = BundleEntryProto.FromString(self.value(key))
        change(entry)
        self.set(key, entry.SerializeToString())

    def place(self, key: bytes) -> tuple[int, int]:
        """(offset, size) of a tensor."""
        from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

        entry = BundleEntryProto.FromString(self.value(key))
        return entry.offset, entry.size

    def replace(self, key: bytes, tensor: bytes, checked: bytes | None = None) -> None:
        """Give a tensor other bytes, of any length, and the checksum of `checked`."""
        start, size = self.place(key)
        self.data = self.data[:start] + tensor + self.data[start + size :]
        for other, _ in self.entries[1:]:
            if self.place(other)[0] > start:
                self.change(other, lambda entry: setattr(entry, "offset", entry.offset + len(tensor) - size))

        def renew(entry: Any) -> None:
            entry.size, entry.crc32c = len(tensor), crc32c.masked(tensor if checked is None else checked)

        self.change(key, renew)

    def others(self) -> list[tuple[bytes, bytes]]:
        """The entries with those of two gates exchanged: different weights from the same data."""
        swapped = {
            checkpoint_key(name).encode(): checkpoint_key(other).encode()
            for pair in _PAIRS
            for name, other in (pair, pair[::-1])
        }
        values = dict(self.entries)
        return [(key, values.get(swapped.get(key), value)) for key, value in self.entries]


def block(
    entries: Entries, interval: int = 16, restarts: Sequence[int] | None = None, share: bool = True, long: bool = False
) -> bytes:
    """A block with a restart point at every `interval`-th entry, or at `restarts`."""
    data, places, last = b"", [0], b""
    for number, (key, value) in enumerate(entries):
        if number and number % interval == 0:
            places.append(len(data))
        whole = number % interval == 0 or not share
        shared = (
            0
            if whole
            else next((i for i, (a, b) in enumerate(zip(last, key, strict=False)) if a != b), min(len(last), len(key)))
        )
        data += b"".join(varint(size, long) for size in (shared, len(key) - shared, len(value))) + key[shared:] + value
        last = key
    places = places if restarts is None else restarts
    return data + struct.pack(f"<{len(places) + 1}I", *places, len(places))


def varint(number: int, long: bool = False) -> bytes:
    """The varint of a number; with `long`, one byte longer than necessary."""
    found = []
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number | 0x80, 0] if long else [*found, number])


def after(key: bytes) -> bytes:
    """A key after all that begin as `key` does, as TensorFlow's writer ends its index."""
    return bytes([key[0] + 1]) if key and key[0] < 255 else key + b"\1"


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf encodes it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def _appended(table: bytearray, data: bytes, kind: int = 0) -> bytes:
    handle = varint(len(table)) + varint(len(data))
    table += data + bytes([kind]) + struct.pack("<I", crc32c.masked(data + bytes([kind])))
    return handle


def weights(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Different, valid weights."""
    for key, _ in checkpoint.entries[1:]:
        if key != _GRAPH and draw.random() < 0.5:
            size = checkpoint.place(key)[1] // 4
            checkpoint.replace(key, struct.pack(f"<{size}f", *(draw.gauss(0, 1) for _ in range(size))))


def exchange(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Tensors of two gates exchanged in the only run of entries, which is also valid."""
    checkpoint.entries = checkpoint.others()


def hide_in_value(checkpoint: Checkpoint, draw: random.Random) -> None:
    """A second run of entries in an unknown field of the last value, where a second restart point leads."""
    key, value = checkpoint.entries[-1]
    run = block(checkpoint.others(), share=False)[: -2 * 4]
    checkpoint.entries[-1] = (key, value + field(draw.choice([9, 100, 2000]), run))
    checkpoint.interval = len(checkpoint.entries)
    checkpoint.restarts[0] = [0, len(block(checkpoint.entries, checkpoint.interval)) - 8 - len(run)]


def hide_behind_handle(checkpoint: Checkpoint, draw: random.Random) -> None:
    """A second block, and a second run of the index, behind the first handle, where a restart point leads."""
    first, second = bytearray(), bytearray()
    handle = _appended(first, block(checkpoint.entries))
    _appended(second, block(checkpoint.others()))
    checkpoint.hidden = bytes(second)
    run = block(
        [(b"", varint(len(first)) + varint(len(second) - 5)), (b"\xff", varint(len(first)) + varint(len(second) - 5))]
    )[:-8]
    checkpoint.tail = run
    limit = after(checkpoint.entries[-1][0])
    checkpoint.restarts[-1] = [0, len(block([(limit, handle + run)], 1)) - 8 - len(run)]


def hide_block_in_value(checkpoint: Checkpoint, draw: random.Random) -> None:
    """The last value holds a whole block with its checksum, and a second entry of the index leads there."""
    inner = bytearray()
    _appended(inner, block(checkpoint.others()))
    key, value = checkpoint.entries[-1]
    checkpoint.entries[-1] = (key, value + field(9, bytes(inner)))
    start = len(block(checkpoint.entries, checkpoint.interval)) - 8 - len(inner)
    inner_handle = varint(start) + varint(len(inner) - 5)
    checkpoint.limits[0] = draw.choice([b"", b"U", b"_"])
    checkpoint.tail = block([(b"\xff", inner_handle)])[:-8] if draw.random() < 0.5 else b""


def hide_in_object_graph(checkpoint: Checkpoint, draw: random.Random) -> None:
    """A tensor's second bytes in an unknown field of the object graph, which is long enough for anything."""
    start, size = checkpoint.place(_GRAPH)
    text = _text(checkpoint.data[start : start + size])
    hidden = text + draw.choice(
        [field(1000, draw.randbytes(256)), b"\x0b", b"\x0c", b"\0\0", field(2, b""), b"\x0a\x00"]
    )
    set_text(checkpoint, hidden)


def lengthen_text(checkpoint: Checkpoint, draw: random.Random) -> None:
    """The length of the object graph, one byte longer than necessary."""
    start, size = checkpoint.place(_GRAPH)
    set_text(checkpoint, _text(checkpoint.data[start : start + size]), long=True)


def _text(tensor: bytes) -> bytes:
    _, position = sstable.varint(tensor, 0)
    return tensor[position + 4 :]


def set_text(checkpoint: Checkpoint, text: bytes, long: bool = False) -> None:
    """Give the checkpoint another object graph, and all checksums that go with it."""
    fixed = struct.pack("<I", len(text))
    crc = struct.pack("<I", crc32c.masked(fixed))
    checkpoint.replace(_GRAPH, varint(len(text), long) + crc + text, fixed + crc + text)


def unknown_field(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Unknown or repeated fields in an entry or the header."""
    key, value = draw.choice(checkpoint.entries)
    more = draw.choice(
        [
            field(1000, b"x"),
            field(9, b""),
            b"\x0b\x0c",
            b"\x0c",
            b"\0",
            value,
            b"\x08\x01",
            b"\x28\x80\x00",
            b"\x12\x00",
        ]
    )
    checkpoint.set(key, value + more)


def lengthen_field(checkpoint: Checkpoint, draw: random.Random) -> None:
    """The first number of an entry's or the header's message, one byte longer than necessary."""
    key, value = draw.choice(checkpoint.entries)
    checkpoint.set(key, value[:1] + bytes([value[1] | 0x80, 0]) + value[2:])


def other_field(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Another value of a known field."""
    key = draw.choice([key for key, _ in checkpoint.entries[1:]])

    def change(entry: Any) -> None:
        draw.choice(
            [
                lambda: setattr(entry, "dtype", draw.choice([1, 2, 3, 7, 14, 23, 999])),
                lambda: setattr(entry, "shard_id", draw.choice([1, -1, 2**31 - 1])),
                lambda: setattr(entry, "offset", draw.choice([0, 4, 8, entry.offset + 4, -4, 2**40])),
                lambda: setattr(entry, "size", draw.choice([0, 4, entry.size + 4, entry.size - 4, -4, 2**40])),
                lambda: setattr(entry, "crc32c", draw.getrandbits(32)),
                lambda: entry.slices.add().extent.add(start=0),
                lambda: entry.shape.dim.add(size=draw.choice([0, 1, 2, -1])),
                lambda: entry.shape.dim.add(size=1, name="x"),
                lambda: setattr(entry.shape, "unknown_rank", True),
                lambda: entry.shape.dim.reverse(),
                lambda: entry.ClearField("shape"),
            ]
        )()

    checkpoint.change(key, change)


def other_header(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Another value of a field of the header."""
    values = [
        b"",
        b"\x08\x02",
        b"\x08\x01",
        b"\x08\x01\x10\x01",
        b"\x08\x01\x1a\x02\x08\x02",
        b"\x08\x01\x1a\x04\x08\x01\x10\x01",
    ]
    checkpoint.set(_HEADER, draw.choice([*values, b"\x08\x01\x1a\x04\x08\x01\x18\x01", b"\x1a\x02\x08\x01\x08\x01"]))


def move_restarts(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Restart points at random places."""
    size = len(block(checkpoint.entries))
    anywhere = [draw.randrange(size) for _ in range(draw.randrange(4))]
    found = draw.choice([anywhere, [0, *anywhere], [0, *sorted(anywhere)], [], [0, 0], [0, 2**32 - 1]])
    checkpoint.restarts[draw.choice([0, 0, 0, -1])] = found


def other_interval(checkpoint: Checkpoint, draw: random.Random) -> None:
    """More or fewer restart points, each at an entry."""
    checkpoint.interval = draw.choice([1, 2, 5, 15, 17, 100])


def share_nothing(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Unabbreviated keys everywhere."""
    checkpoint.share = False


def cut(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Several blocks instead of one, valid or not, possibly with an empty one."""
    number = len(checkpoint.entries)
    checkpoint.cuts = tuple(sorted(draw.randrange(number + 1) for _ in range(draw.randint(1, 3))))
    checkpoint.reverse = draw.random() < 0.2
    if draw.random() < 0.5:
        checkpoint.limits[draw.randrange(len(checkpoint.cuts) + 1)] = draw.choice(checkpoint.entries)[0]


def other_limit(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Another key in the index."""
    last = checkpoint.entries[-1][0]
    checkpoint.limits[0] = draw.choice([b"", b"a", b"\xff", last, last + b"\0", last[:-1], b"d"])


def stray_bytes(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Bytes at places that a reader may skip."""
    name = draw.choice(["gap", "hidden", "tail", "padding"])
    setattr(checkpoint, name, draw.randbytes(draw.randint(1, 4)))
    if draw.random() < 0.2:
        checkpoint.meta = [(b"filter", b"\0\0")]


def other_kind(checkpoint: Checkpoint, draw: random.Random) -> None:
    """A block type, which names the compression."""
    checkpoint.kind = draw.choice([1, 2, 4, 255])


def lengthen_varints(checkpoint: Checkpoint, draw: random.Random) -> None:
    """The numbers of entries, one byte longer than necessary."""
    checkpoint.long = True


def other_order(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Entries out of order, twice, or missing."""
    entries, place = checkpoint.entries, draw.randrange(len(checkpoint.entries))
    draw.choice(
        [
            lambda: draw.shuffle(entries),
            lambda: entries.insert(place, entries[place]),
            lambda: entries.insert(place + 1, (entries[place][0], draw.choice(entries)[1])),
            lambda: entries.pop(place),
            lambda: entries.append((b"zz", entries[place][1])),
            lambda: entries.insert(1, (b"\1", entries[place][1])),
        ]
    )()


def other_bytes(checkpoint: Checkpoint, draw: random.Random) -> None:
    """Any byte of an entry."""
    key, value = draw.choice(checkpoint.entries)
    place = draw.randrange(len(value))
    checkpoint.set(key, value[:place] + bytes([value[place] ^ 1 << draw.randrange(8)]) + value[place + 1 :])


# In an order that combines: tamperings that read an entry come before those that break one.
_OF_ENTRIES = (weights, exchange, hide_in_object_graph, lengthen_text, other_field, unknown_field, lengthen_field)
_OF_BYTES = (other_bytes, other_header, other_order, hide_in_value, hide_behind_handle, hide_block_in_value)
_OF_BLOCKS = (move_restarts, other_interval, share_nothing, cut, other_limit, stray_bytes, other_kind, lengthen_varints)
TAMPERINGS = (*_OF_ENTRIES, *_OF_BYTES, *_OF_BLOCKS)
