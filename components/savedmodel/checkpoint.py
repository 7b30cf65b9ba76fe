"""Reads the weights of a cell out of a SavedModel, without TensorFlow, and verifies every checksum.

`variables/` holds a checkpoint in TensorFlow's tensor bundle format. variables.index is a table
(`components.formats.table`) from the key of a tensor to a BundleEntryProto, and from the empty key to a
BundleHeaderProto. variables.data-00000-of-00001 holds the tensors' little-endian bytes. The object graph, itself a
tensor of the checkpoint, gives the key of a variable: the attribute VARIABLE_VALUE of the model's child of that name.
This reader accepts only the bytes that TensorFlow itself writes, so that no other reader sees different content.
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/tensor_bundle/tensor_bundle.h
"""

import math
import pathlib
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from components import regular_files
from components.errors import BitsumError, unreadable
from components.formats import crc32c, protos, table
from components.proof.weights import NAMES, Weights

_INDEX = "variables.index"
_DATA = "variables.data-00000-of-00001"
# The index has one small entry for each of a dozen tensors.
_MAX_INDEX_BYTES = 2**20
# The largest cell, of 4,096 units, has 0.2 GB.
_MAX_DATA_BYTES = 2**28
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# tensor_bundle.h: kTensorBundleVersion.
_VERSION = 1
_ATTRIBUTE = "VARIABLE_VALUE"
_RANKS = {"W": 2, "U": 2, "b": 1}
_LENGTH = struct.Struct("<I")
_MODULES = {
    "shapes": "tensorflow.core.framework.tensor_shape_pb2",
    "types": "tensorflow.core.framework.types_pb2",
    "bundle": "tensorflow.core.protobuf.tensor_bundle_pb2",
    "objects": "tensorflow.core.protobuf.trackable_object_graph_pb2",
}
_Content = TypeVar("_Content")


def read(model_dir: str | pathlib.Path) -> Weights:
    """The float32 weights of the SavedModel in `model_dir`; `Weights.problem` checks whether they are a cell's.

    Raises:
        BitsumError: the checkpoint is missing or damaged, or its variables are not the eleven of a cell.
    """
    return _read(model_dir, _weights)


def object_graph(model_dir: str | pathlib.Path) -> bytes:
    """The serialized object graph in the checkpoint of the SavedModel in `model_dir`. Raises: BitsumError, as in
    `read`."""
    return _read(model_dir, lambda bundle, modules: bundle.text(OBJECT_GRAPH))


def _read(model_dir: str | pathlib.Path, select: Callable[["_Bundle", Any], _Content]) -> _Content:
    folder = pathlib.Path(model_dir) / "variables"
    modules = protos.load(**_MODULES)
    index = _bytes(folder / _INDEX, _MAX_INDEX_BYTES)
    data = _bytes(folder / _DATA, _MAX_DATA_BYTES)
    try:
        entries = _index(index, modules)
        return select(_Bundle(entries, data, modules), modules)
    except (ValueError, DecodeError) as error:
        raise BitsumError(f"cannot read the weights in {folder}: {error or 'damaged'}") from error


def checkpoint_key(name: str) -> str:
    """The key in a checkpoint of the variable that is the model's child `name`."""
    return f"{name}/.ATTRIBUTES/{_ATTRIBUTE}"


class _Bundle:
    """The tensors of a checkpoint: {key: BundleEntryProto} and the bytes of all tensors."""

    def __init__(self, entries: Mapping[str, Any], data: bytes, modules: Any):
        self.entries = entries
        self._data = data
        self._types = modules.types
        _check_layout(entries, len(data))

    def floats(self, key: str, rank: int) -> Any:
        """A float32 tensor as nested lists of Python floats."""
        entry, data = self._tensor(key, self._types.DT_FLOAT)
        shape = [dimension.size for dimension in entry.shape.dim]
        if len(shape) != rank or min(shape) < 1 or len(data) != 4 * math.prod(shape):
            raise ValueError(f"{key} has {len(data)} bytes and shape {shape[:4]}")
        if crc32c.masked(data) != entry.crc32c:
            raise ValueError(f"the checksum of {key} does not match")
        return _nested(struct.unpack(f"<{len(data) // 4}f", data), shape)

    def text(self, key: str) -> bytes:
        """A tensor of one string: its length as a varint, the masked CRC of the length as uint32, and the string."""
        entry, data = self._tensor(key, self._types.DT_STRING)
        length, position = table.varint(data, 0)
        text = data[position + _LENGTH.size :]
        if entry.shape.dim or len(text) != length:
            raise ValueError(f"{key} is not one string")
        length_crc = data[position : position + _LENGTH.size]
        # The checksums cover the length as a fixed-size number instead of the varint.
        fixed = length.to_bytes(4 if length < 2**32 else 8, "little")
        if _LENGTH.pack(crc32c.masked(fixed)) != length_crc or crc32c.masked(fixed + length_crc + text) != entry.crc32c:
            raise ValueError(f"the checksum of {key} does not match")
        return text

    def _tensor(self, key: str, dtype: int) -> tuple[Any, bytes]:
        if key not in self.entries:
            raise ValueError(f"{key} is missing")
        entry = self.entries[key]
        if entry.dtype != dtype:
            raise ValueError(f"{key} is not a tensor of type {self._types.DataType.Name(dtype)}")
        return entry, self._data[entry.offset : entry.offset + entry.size]


def _index(source: bytes, modules: Any) -> dict[str, Any]:
    try:
        raw = table.read(source)
    except ValueError as error:
        raise ValueError(f"{_INDEX} is damaged: {error}") from error
    source, kind = raw.pop(b"", b""), modules.bundle.BundleHeaderProto
    header = _parsed(kind, source)
    if header.num_shards != 1 or header.endianness != kind.LITTLE:
        raise ValueError(
            f"{_INDEX} has {header.num_shards} data files or big-endian numbers, must have one, little-endian"
        )
    _require_plain(kind(num_shards=1, version={"producer": _VERSION}), source, "the header")
    return {key.decode(): _entry(value, f"the entry of {key.decode()!r}", modules) for key, value in raw.items()}


def _entry(source: bytes, where: str, modules: Any) -> Any:
    kind = modules.bundle.BundleEntryProto
    entry = _parsed(kind, source)
    if entry.slices:
        raise ValueError(f"{where} has slices, must be a whole tensor")
    plain = {name: getattr(entry, name) for name in ("dtype", "shard_id", "offset", "size", "crc32c")}
    shape = modules.shapes.TensorShapeProto(dim=[{"size": dimension.size} for dimension in entry.shape.dim])
    _require_plain(kind(shape=shape, **plain), source, where)
    return entry


def _parsed(kind: Any, source: bytes) -> Any:
    """The message of class `kind`, without unknown fields. Raises: DecodeError."""
    with warnings.catch_warnings():
        # Where protobuf gives up in the middle, it drops the rest with a warning; `_require_plain` refuses that.
        warnings.simplefilter("ignore", RuntimeWarning)
        message = kind.FromString(source)
    message.DiscardUnknownFields()
    return message


def _require_plain(message: Message, source: bytes, where: str) -> None:
    """Raises: ValueError, `source` is not `message` as TensorFlow writes it."""
    if message.SerializeToString(deterministic=True) != source:
        raise ValueError(f"{where} holds unknown fields, or TensorFlow writes it differently")


def _check_layout(entries: Mapping[str, Any], size: int) -> None:
    """Raises: ValueError, the tensors do not fill the data file without gap or overlap, as TensorFlow writes them."""
    position = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
        if entry.shard_id or entry.offset != position or entry.size < 0:
            raise ValueError(f"{key} does not begin where the previous tensor ends")
        position += entry.size
    if position != size:
        raise ValueError(f"{_DATA} has {size} bytes, must have {position} according to its index; is it truncated?")


def _weights(bundle: _Bundle, modules: Any) -> Weights:
    source = bundle.text(OBJECT_GRAPH)
    graph = _parsed(modules.objects.TrackableObjectGraph, source)
    _require_plain(graph, source, "its object graph")
    keys = _keys(graph)
    unknown = set(bundle.entries) - set(keys.values()) - {OBJECT_GRAPH}
    if sorted(keys) != sorted(NAMES) or unknown:
        raise ValueError(
            f"a cell has the variables {', '.join(NAMES)}; found {', '.join([*keys, *sorted(unknown)])[:200]}"
        )
    return Weights.of({name: bundle.floats(key, _RANKS[name[0]]) for name, key in keys.items()})


def _keys(graph: Any) -> dict[str, str]:
    """{name of the model's child: key of its value} for every object with values in the checkpoint."""
    if not graph.nodes:
        raise ValueError("its object graph is empty")
    names: dict[int, str] = {}
    for child in graph.nodes[0].children:
        names.setdefault(child.node_id, child.local_name)
    if len({child.local_name for child in graph.nodes[0].children}) != len(graph.nodes[0].children):
        raise ValueError("two children of its root have the same name")
    if any(node.slot_variables or node.HasField("registered_saver") for node in graph.nodes):
        raise ValueError("its object graph restores values differently from a cell's")
    keys = {}
    for number, node in enumerate(graph.nodes):
        for attribute in node.attributes:
            name = names.get(number, "")
            # Only under its usual key: otherwise Python's loader and the graph's restore operation could read
            # different tensors.
            key = attribute.checkpoint_key
            if attribute.name != _ATTRIBUTE or key != checkpoint_key(name):
                owner = name or f"object {number}"
                raise ValueError(f"its object graph has {key!r} as {attribute.name} of {owner!r}")
            keys[name] = key
    return keys


def _nested(values: Sequence[float], shape: Sequence[int]) -> Any:
    if len(shape) == 1:
        return list(values)
    stride = len(values) // shape[0]
    return [_nested(values[start : start + stride], shape[1:]) for start in range(0, len(values), stride)]


def _bytes(path: pathlib.Path, limit: int) -> bytes:
    try:
        return regular_files.read(path, limit)
    except OSError as error:
        hint = "" if isinstance(error, PermissionError) else "; is this the folder of a SavedModel?"
        raise BitsumError(unreadable(f"the weights in {path}", error) + hint) from error
