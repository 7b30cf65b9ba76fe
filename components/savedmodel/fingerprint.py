"""The identity of an exported model: its weights and its graph, independent of the process that wrote them.

The files of two exports of one model differ, as names of traced functions hold a counter of the process. TensorFlow's
own fingerprint has the opposite flaw: its graph_def_program_hash omits the bodies of functions, which hold the whole
cell.
"""

import pathlib

import numpy as np
import tensorflow as tf

from components.errors import BitsumError
from components.savedmodel import graph_identity
from components.savedmodel.canonical_graph import sha256_of_parts

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def fingerprint(model_dir: str | pathlib.Path) -> str:
    """The identity of the SavedModel in `model_dir`: hexadecimal SHA-256 of its graph's and its weights' hashes.

    Raises:
        BitsumError: the SavedModel cannot be read.
    """
    return sha256_of_parts(graph_identity.graph_sha256(model_dir).encode(), weights_sha256(model_dir).encode())


def weights(model_dir: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The variables of the SavedModel in `model_dir` by name, as its checkpoint holds them.

    Raises:
        BitsumError: the checkpoint cannot be read.
    """
    try:
        reader = tf.train.load_checkpoint(str(pathlib.Path(model_dir) / "variables" / "variables"))
        names = sorted(name for name in reader.get_variable_to_shape_map() if name.endswith(_VALUE))
        return {name.removesuffix(_VALUE): reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise BitsumError(
            f"cannot read the weights of the model in {model_dir}: {str(error).partition(chr(10))[0]}"
        ) from error


def weights_sha256(model_dir: str | pathlib.Path) -> str:
    """Hexadecimal SHA-256 over name, dtype, shape and little-endian bytes of every variable, in the order of the
    names."""
    parts = []
    for name, value in weights(model_dir).items():
        little_endian = value.astype(value.dtype.newbyteorder("<"))
        parts += [f"{name} {value.dtype.name} {value.shape}".encode(), little_endian.tobytes()]
    return sha256_of_parts(*parts)
