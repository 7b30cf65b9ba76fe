"""Checks that TensorFlow itself loads the weights that the checker reads. The two readers share no code.

`components.savedmodel.checkpoint` refuses everything unknown; this check is for unforeseen differences. It imports
TensorFlow.
"""

import pathlib

import numpy as np
import tensorflow as tf

from components.proof.weights import NAMES
from components.savedmodel import checkpoint
from components.savedmodel.checkpoint import OBJECT_GRAPH, checkpoint_key


def differences(model_dir: str | pathlib.Path) -> list[str]:
    """The bitwise differences between the tensors that TensorFlow loads and those that `checkpoint` reads, a line each.

    Raises:
        BitsumError: `checkpoint` cannot read the weights.
    """
    weights = checkpoint.read(model_dir)
    expected = {checkpoint_key(name): _bits(np.array(getattr(weights, name), np.float32)) for name in NAMES}
    expected[OBJECT_GRAPH] = checkpoint.object_graph(model_dir)
    try:
        reader = tf.train.load_checkpoint(str(pathlib.Path(model_dir) / "variables" / "variables"))
        # Listed keys and keys looked up by name: listing reads the index from front to back, a look-up seeks.
        keys = {*reader.get_variable_to_shape_map(), *expected}
        loaded = {key: _bits(reader.get_tensor(key)) for key in keys}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        return [f"TensorFlow cannot load the weights: {str(error).partition(chr(10))[0]}"]
    return [
        f"TensorFlow loads a different {key} than the checker reads"
        for key in sorted(keys)
        if loaded[key] != expected.get(key)
    ]


def _bits(tensor: np.ndarray | bytes) -> object:
    """A value that is equal for bitwise equal tensors."""
    return (tensor.dtype, tensor.shape, tensor.tobytes()) if isinstance(tensor, np.ndarray) else tensor
