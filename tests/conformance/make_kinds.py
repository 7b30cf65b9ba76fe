"""Writes the SavedModel `kinds`: for each dtype, a signature of that name returns its input `x`, of any shape, as `y`.

usage: python make_kinds.py FOLDER      (FOLDER/1 is written)
"""

import sys

import tensorflow as tf

FLOATS = (tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.complex64, tf.complex128)
INTEGERS = (tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64)
DTYPES = (*FLOATS, *INTEGERS, tf.bool, tf.string)


def save(folder: str) -> None:
    """Save version 1 in `folder`."""
    module = tf.Module()
    module.functions = {}
    for dtype in DTYPES:

        @tf.function(input_signature=[tf.TensorSpec(None, dtype, "x")])
        def same(x):
            return {"y": tf.identity(x)}

        module.functions[dtype.name] = same
    tf.saved_model.save(module, f"{folder}/1", signatures=dict(module.functions))


if __name__ == "__main__":
    save(sys.argv[1])
