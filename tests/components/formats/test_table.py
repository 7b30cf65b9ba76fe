"""Tables of checkpoints: those that TensorFlow wrote are read and written again byte for byte, and nothing else is
read."""

import importlib.metadata
import pathlib
import random

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import forged_checkpoints
from benchmarks.forged_checkpoints import Checkpoint
from components.formats import table

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
def test_what_tensorflow_writes_is_written_again_byte_for_byte(tmp_path, count, length):
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
        (hidden_in_value, "a restart point is not where an entry with a whole key begins"),
        (changed(restarts={0: [0, 30]}), "a restart point is not where an entry with a whole key begins"),
        (changed(restarts={0: [1]}), "the restart points of a block do not ascend from 0"),
        (changed(restarts={0: [0, 0]}), "the restart points of a block do not ascend from 0"),
        (changed(restarts={0: []}), "the restart points of a block do not ascend from 0"),
        (changed(restarts={-1: [0, 3]}), "a restart point is not where an entry with a whole key begins"),
        (changed(tail=b"\0"), "bytes follow the handle of a block in its index"),
        (changed(limits={0: b"U"}), "lies outside of what the index says of its block"),
        (changed(cuts=(5,), limits={0: b"\xff"}), "lies outside of what the index says of its block"),
        (changed(gap=b"\0", cuts=(5,)), r"a block begins at \d+, not at \d+, where the one before it ends"),
        (changed(reverse=True, cuts=(5,)), "where the one before it ends"),
        (changed(padding=b"\1"), "bytes follow the handles in its footer"),
        (changed(meta=[(b"filter", b"\0\0")]), "its meta index has entries"),
        (changed(long=True), "a number takes more bytes than it needs"),
        (changed(hidden=b"\0"), "it is not written as TensorFlow writes these entries"),
        (changed(interval=5), "it is not written as TensorFlow writes these entries"),
        (changed(cuts=(5,), limits={0: b"W_i"}), "it is not written as TensorFlow writes these entries"),
        (whole_keys, "it is not written as TensorFlow writes these entries"),
        (reversed_entries, "is out of order"),
        (lambda checkpoint: checkpoint.entries.append(checkpoint.entries[-1]), "is out of order"),
    ],
)
def test_what_tensorflow_does_not_write_is_refused(certified_model, change, words):
    checkpoint = Checkpoint.read(certified_model)
    assert table.read(checkpoint.table()) == dict(checkpoint.entries)
    change(checkpoint)
    with pytest.raises(ValueError, match=words) as refusal:
        table.read(checkpoint.table())
    assert "\n" not in str(refusal.value)


def test_keys_that_unfold_to_more_than_fits_are_refused(certified_model, monkeypatch):
    written = Checkpoint.read(certified_model).table()
    monkeypatch.setattr(table, "_MAX_KEY_BYTES", 100)
    with pytest.raises(ValueError, match="its keys have more than 100 bytes"):
        table.read(written)
