"""Warmup requests: a model server replays them while it loads a version, so that no user waits for the first run.

Format: at most 1000 TFRecords of PredictionLog in `model_files.WARMUP_REQUESTS`. If a record fails, TensorFlow Serving
refuses the version. So infra validation loads the model with them.
https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.tools import saved_model_utils as loader
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from components import signatures
from components.errors import ModelError
from components.formats import strict_protos
from components.savedmodel import model_files
from components.task import addition


def write(model: pathlib.Path, examples: list[bytes], model_name: str) -> int:
    """Write warmup requests from `examples` (serialized tf.Examples) for each signature of `model`; returns their
    number.

    Raises:
        ModelError: `model` is not a SavedModel, or lacks a signature `step` with a state.
    """
    known = _signatures(model)
    try:
        units = known[signatures.STEP].inputs[signatures.STATE].tensor_shape.dim[1].size
    except IndexError as error:
        raise ModelError(
            f"the model lacks a signature {signatures.STEP} with a {signatures.STATE} of [B, H]"
        ) from error
    requests = [
        _request(model_name, signatures.SERVING_DEFAULT, {signatures.EXAMPLES: np.array(examples, dtype=object)})
    ]
    for serialized in examples:
        a, b = _operands(serialized)
        state = np.zeros((1, units), np.float32)
        bits = {signatures.A: a, signatures.B: b}
        packed = {name: _packed(operand) for name, operand in bits.items()}
        requests.append(_request(model_name, signatures.STEP, bits | {signatures.STATE: state}))
        for verb in signatures.verbs(known):
            requests.append(_request(model_name, signatures.bits(verb), bits))
            if signatures.packed(verb) in known:
                requests.append(_request(model_name, signatures.packed(verb), packed | {signatures.STATE: state}))
    file = model / model_files.WARMUP_REQUESTS
    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString(deterministic=True))
    return len(requests)


def _signatures(model: pathlib.Path) -> Mapping[str, meta_graph_pb2.SignatureDef]:
    try:
        return loader.get_meta_graph_def(str(model), tf.saved_model.SERVING).signature_def
    except (OSError, RuntimeError) as error:
        # An errno comes from the operating system (a full disk, for example). For a file that is not a model,
        # TensorFlow raises an OSError without errno.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ModelError(f"the model cannot be read: {' '.join(str(error).split())}") from error


def _operands(serialized: bytes) -> tuple[np.ndarray, np.ndarray]:
    features = strict_protos.parse(tf.train.Example, serialized).features.feature
    a, b = (np.array([features[name].int64_list.value], np.int64) for name in (addition.FEATURE_A, addition.FEATURE_B))
    return a, b


def _packed(bits: np.ndarray) -> np.ndarray:
    """Byte strings [1] of bits [1, T]."""
    return np.array([np.packbits(bits[0].astype(np.uint8), bitorder="little").tobytes()], dtype=object)


def _request(model_name: str, signature: str, inputs: dict[str, np.ndarray]) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request
