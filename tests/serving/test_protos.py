"""serving.protos: the generated modules without TensorFlow, which can still be imported before, after or
concurrently."""

import subprocess
import sys

import pytest

from components import formats
from components.errors import BitsumError
from serving import protos

pytestmark = pytest.mark.fast

_LEAN = """
import sys
from serving import protos
apis = protos.load()
assert apis.predict.PredictRequest(output_filter=["sum"]).SerializeToString() == b"\\x1a\\x03sum"
"""
_NOTHING_HEAVY = "assert not {'tensorflow', 'numpy'} & set(sys.modules), sorted(sys.modules)"

# A thread imports and uses TensorFlow while the stand-in is in place.
_MEANWHILE = """
import sys, threading

class Interloper:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow.core.framework.tensor_pb2" and not threads:
            caught = threading.Event()
            threads.append(threading.Thread(target=use, args=(caught,)))
            threads[0].start()
            assert caught.wait(10)

def use(caught):
    import tensorflow as tf
    stood_in.append(tf is sys.modules["tensorflow"] and not hasattr(tf, "__file__"))
    caught.set()
    from tensorflow import constant
    sums.append(int(tf.add(constant(13), 29)))

threads, stood_in, sums = [], [], []
sys.meta_path.insert(0, Interloper())
"""

_CAUGHT_IT = """
threads[0].join()
assert stood_in == [True] and sums == [42], (stood_in, sums)
"""

_TENSORFLOW = """
import tensorflow as tf
assert tf.__version__ and int(tf.add(13, 29)) == 42
assert tf.train.Example is apis.example.Example
tf.io.serialize_tensor([1])
"""


def _run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_protos_import_neither_tensorflow_nor_numpy():
    _run(_LEAN + _NOTHING_HEAVY)


@pytest.mark.slow
def test_tensorflow_can_be_imported_afterwards_and_concurrently():
    _run(_MEANWHILE + _LEAN + _CAUGHT_IT + _TENSORFLOW)


def test_an_imported_tensorflow_is_used_without_a_stand_in():
    import tensorflow as tf

    apis = protos.load.__wrapped__()
    assert sys.modules["tensorflow"] is tf
    assert apis.tensor.TensorProto is type(tf.make_tensor_proto(1))


def test_a_missing_package_is_named():
    with pytest.raises(BitsumError, match="no_such_package is not installed"):
        formats.protos.load(predict="no_such_package.apis")
