"""Writes a SavedModel with the signatures of TensorFlow Serving's half_plus_two, as recorded by the probe half_meta: y = x / 2 + 2.

usage: python -m tests.conformance.make_half_plus_two FOLDER      (FOLDER/00000123 is written)
"""

import sys

import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import meta_graph_pb2

from tests.conformance import recording, wire

SECTION = "12_classify_regress"
VERSION = "00000123"
_KEYS = (b"x", b"x2")


def save(folder: str) -> None:
    """Save the version in `folder`."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        _graph()
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(f"{folder}/{VERSION}")
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signature_def_map=_signatures())
        builder.save()


def _graph() -> None:
    """y = x / 2 + 2, and the same of x2, of tf.Examples in `tf_example`; the names are those in the signatures."""
    half, two = (tf.compat.v1.get_variable(name, initializer=value) for name, value in (("a", 0.5), ("b", 2.0)))
    examples = tf.compat.v1.placeholder(tf.string, name="tf_example")
    parsed = tf.raw_ops.ParseExample(
        serialized=examples, names=[], sparse_keys=[], dense_keys=list(_KEYS), dense_defaults=[tf.constant([], tf.float32), [0.0]],
        sparse_types=[], dense_shapes=[[1], [1]], name="ParseExample/ParseExample",
    )  # fmt: skip
    x, x2 = tf.identity(parsed.dense_values[0], name="x"), tf.identity(parsed.dense_values[1], name="x2")
    tf.add(tf.multiply(half, x), two, name="y")
    tf.add(tf.multiply(half, x), 3.0, name="y2")
    tf.add(tf.multiply(half, x2), 3.0, name="y3")


def _signatures() -> dict[str, meta_graph_pb2.SignatureDef]:
    _, _, found = wire.decoded(wire.METADATA, recording.load()[SECTION]["half_meta"].answer.response)
    return {
        name: json_format.Parse(json_format.MessageToJson(signature), meta_graph_pb2.SignatureDef())
        for name, signature in found.signature_def.items()
    }


if __name__ == "__main__":
    save(sys.argv[1])
