"""Tables of checkpoints: those that TensorFlow wrote are read and written again byte for byte, and nothing else is
read."""

import importlib.metadata
import pathlib
import random
import struct

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import forged_checkpoints
from benchmarks.forged_checkpoints import Checkpoint
from components.formats import crc32c, table

pytestmark = pytest.mark.fast


def saved(folder: pathlib.Path, names: list[str]) -> bytes:
    """The index of a checkpoint of scalars, by TensorFlow."""
    values = [np.float32(number) for number in range(len(names))]
    tf.raw_ops.SaveV2(
        prefix=str(folder / "saved"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
    )
    return (folder / "saved.index").read_bytes()


@pytest.mark.parametrize(
    "count, length",
    [(1, 1), (2, 1), (15, 4), (16, 4), (17, 4), (33, 40), (500, 700), (30, 20_000), (3, 300_000), (3, 600_000)],
)
def test_tables_by_tensorflow_are_written_again_byte_for_byte(tmp_path, count, length):
    """Blocks end at 256 kB, or before an entry of twice that."""
    draw = random.Random(f"{count} {length}")
    beginnings = draw.sample(
        [f"{first}{second}" for first in "!AZaz~\x7fé€" for second in map(chr, range(33, 127))], count
    )
    written = saved(
        tmp_path, [beginning + draw.choice("xyz") * draw.randint(length // 2, length) for beginning in beginnings]
    )
    entries = table.read(written)
    assert len(entries) == count + 1 and list(entries) == sorted(entries)
    assert table.write(entries) == written


def test_every_checkpoint_that_is_installed_with_tfx_is_read():
    """Those of its test data, by several versions of TensorFlow."""
    files = [file for file in importlib.metadata.files("tfx") if file.name == "variables.index"]
    assert len(files) > 5
    for file in files:
        assert table.read(file.locate().read_bytes())[b""]


def hidden_in_value(checkpoint):
    forged_checkpoints.hide_in_value(checkpoint, random.Random(1))


def whole_keys(checkpoint):
    checkpoint.share = False


def reversed_entries(checkpoint):
    checkpoint.entries.reverse()
    checkpoint.limits[0] = b"\xff"


def changed(**fields):
    return lambda checkpoint: vars(checkpoint).update(fields)


@pytest.mark.parametrize(
    "change, words",
    [
        (hidden_in_value, "a restart point is not at an entry with a whole key"),
        (changed(restarts={0: [0, 30]}), "a restart point is not at an entry with a whole key"),
        (changed(restarts={0: [1]}), "the restart points of a block do not ascend from 0"),
        (changed(restarts={0: [0, 0]}), "the restart points of a block do not ascend from 0"),
        (changed(restarts={0: []}), "the restart points of a block do not ascend from 0"),
        (changed(restarts={-1: [0, 3]}), "a restart point is not at an entry with a whole key"),
        (changed(tail=b"\0"), "bytes follow the handle of a block in its index"),
        (changed(limits={0: b"U"}), "lies outside of the keys that the index gives for its block"),
        (changed(cuts=(5,), limits={0: b"\xff"}), "lies outside of the keys that the index gives for its block"),
        (changed(gap=b"\0", cuts=(5,)), r"a block begins at \d+, not at \d+, where the previous one ends"),
        (changed(reverse=True, cuts=(5,)), "where the previous one ends"),
        (changed(padding=b"\1"), "bytes follow the handles in its footer"),
        (changed(meta=[(b"filter", b"\0\0")]), "its meta index has entries"),
        (changed(long=True), "a number takes more bytes than it needs"),
        (changed(hidden=b"\0"), "TensorFlow writes these entries differently"),
        (changed(interval=5), "TensorFlow writes these entries differently"),
        (changed(cuts=(5,), limits={0: b"W_i"}), "TensorFlow writes these entries differently"),
        (whole_keys, "TensorFlow writes these entries differently"),
        (reversed_entries, "is out of order"),
        (lambda checkpoint: checkpoint.entries.append(checkpoint.entries[-1]), "is out of order"),
    ],
)
def test_a_table_that_tensorflow_does_not_write_is_refused(certified_model, change, words):
    checkpoint = Checkpoint.read(certified_model)
    assert table.read(checkpoint.table()) == dict(checkpoint.entries)
    change(checkpoint)
    with pytest.raises(ValueError, match=words) as refusal:
        table.read(checkpoint.table())
    assert "\n" not in str(refusal.value)


def test_keys_that_expand_beyond_the_limit_are_refused(certified_model, monkeypatch):
    written = Checkpoint.read(certified_model).table()
    monkeypatch.setattr(table, "_MAX_KEY_BYTES", 100)
    with pytest.raises(ValueError, match="its keys have more than 100 bytes"):
        table.read(written)


def forged(handle: bytes | None = None, block: bytes = b"") -> bytes:
    """A table of one block, whose handle in the index is `handle` if given."""
    written = bytearray()

    def append(data: bytes) -> bytes:
        place = bytes([len(written), len(data)])
        written.extend(data + b"\0" + struct.pack("<I", crc32c.masked(data + b"\0")))
        return place

    place = append(block)
    handle = place if handle is None else handle
    empty = struct.pack("<II", 0, 1)
    handles = append(empty) + append(bytes([0, 1, len(handle)]) + b"\xff" + handle + empty)
    return bytes(written) + handles.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


@pytest.mark.parametrize(
    "content, words",
    [
        ({"handle": b"\x80"}, "it ends within a number"),
        ({"handle": b"\xff" * 10}, "a number takes more than 64 bits"),
        ({"handle": b"\x00\xff\x01"}, "a block of 255 bytes at 0 lies outside of it"),
        ({"block": b"\0\0\0"}, "a block is too short"),
        ({"block": struct.pack("<I", 2)}, "a block is shorter than its restart points"),
        ({"block": bytes([0, 9, 0]) + struct.pack("<II", 0, 1)}, "an entry lies outside of its block"),
        ({"block": bytes([1, 0, 0]) + struct.pack("<II", 0, 1)}, "an entry lies outside of its block"),
    ],
)
def test_a_block_that_does_not_fit_is_refused(content, words):
    with pytest.raises(ValueError, match=f"^{words}$"):
        table.read(forged(**content))


@pytest.mark.parametrize("entries", [{}, {b"\xff": b"1"}, {b"a": b"1", b"\xff\xff": b"2"}])
def test_tables_without_entries_and_with_the_highest_keys_are_read_back(entries):
    assert table.read(table.write(entries)) == entries
