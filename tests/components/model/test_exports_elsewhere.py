"""The identity of an exported model does not depend on the exporting process."""

import os
import subprocess
import sys

import pytest

from components.model import export
from components.model.carry_select import CarrySelect
from components.model.gru import GRU
from components.savedmodel import checkpoint, fingerprint, graph_identity
from components.savedmodel.canonical_graph import Graph
from components.task.transducer import ADDITION

_AFTER_OTHER_WORK = """
import sys
import tensorflow as tf
from components.model import export
from components.model.carry_select import CarrySelect
from components.model.gru import GRU
from components.task.transducer import ADDITION
for number in range(3):
    tf.function(lambda: tf.while_loop(lambda i: i < 3, lambda i: i + 1, [number]))()
    scanned = lambda x: tf.scan(lambda y, z: y + z, tf.stack([x, x]))[0]
    tf.function(lambda x: tf.cond(x > 0, lambda: x, lambda: scanned(x)))(tf.constant(number))
cell = GRU(3, seed=5)
tf.function(lambda bits: cell.run(bits, bits, cell.start(1)))(tf.zeros([1, 2], tf.int64))
export.save(cell, sys.argv[1])
export.save(GRU(3, seed=5), sys.argv[2], CarrySelect(ADDITION, 20, 8))
export.save(GRU(3, seed=6), sys.argv[3])
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Folders of models that another process exported: bit by bit, in chunks, and bit by bit with other weights."""
    folder = tmp_path_factory.mktemp("elsewhere")
    paths = [folder / name for name in ("steps", "chunks", "others")]
    command = [sys.executable, "-c", _AFTER_OTHER_WORK, *map(str, paths)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    return paths


def test_the_identity_is_that_of_an_export_here(elsewhere, tmp_path):
    here = [tmp_path / name for name in ("steps", "chunks", "other_chunks")]
    for path, parallel in zip(here, (None, CarrySelect(ADDITION, 20, 8), CarrySelect(ADDITION, 20, 9)), strict=True):
        export.save(GRU(3, seed=5), str(path), parallel)
    identities = [fingerprint.fingerprint(str(path)) for path in here]
    assert identities[:2] == [fingerprint.fingerprint(str(path)) for path in elsewhere[:2]]
    assert len(set(identities)) == 3
    assert (here[0] / "saved_model.pb").read_bytes() != (elsewhere[0] / "saved_model.pb").read_bytes()


def test_the_graph_is_that_of_an_export_here_whatever_the_weights(elsewhere, tmp_path):
    export.save(GRU(3, seed=5), str(tmp_path / "here"))
    assert checkpoint.read(elsewhere[2]) != checkpoint.read(tmp_path / "here")
    assert graph_identity.differences(elsewhere[2], Graph(tmp_path / "here")) == []
