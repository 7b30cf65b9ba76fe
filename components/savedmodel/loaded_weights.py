"""Whether TensorFlow itself loads the weights that the checker reads: the two readers of a checkpoint share no code.

`components.savedmodel.checkpoint` refuses what it does not know; this is for what nobody has thought of. Imports TensorFlow.
"""

import pathlib

import numpy as np
import tensorflow as tf

from components.proof.weights import NAMES
from components.savedmodel import checkpoint
from components.savedmodel.checkpoint import OBJECT_GRAPH, checkpoint_key


def differences(model_dir: str | pathlib.Path) -> list[str]:
    """What distinguishes the tensors that TensorFlow loads from those that are read here, bit by bit, a line each;
    empty for none.

    Raises:
        BitsumError: the weights cannot be read here.
    """
    weights = checkpoint.read(model_dir)
    expected = {checkpoint_key(name): _bits(np.array(getattr(weights, name), np.float32)) for name in NAMES}
    expected[OBJECT_GRAPH] = checkpoint.object_graph(model_dir)
    try:
        reader = tf.train.load_checkpoint(str(pathlib.Path(model_dir) / "variables" / "variables"))
        # Those that it lists, and those that it finds by name: listing goes from front to back, finding does not.
        keys = {*reader.get_variable_to_shape_map(), *expected}
        loaded = {key: _bits(reader.get_tensor(key)) for key in keys}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        return [f"TensorFlow cannot load the weights: {str(error).partition(chr(10))[0]}"]
    return [
        f"TensorFlow loads another {key} than is read here" for key in sorted(keys) if loaded[key] != expected.get(key)
    ]


def _bits(tensor: np.ndarray | bytes) -> object:
    """What is equal for tensors that are the same to the last bit."""
    return (tensor.dtype, tensor.shape, tensor.tobytes()) if isinstance(tensor, np.ndarray) else tensor
