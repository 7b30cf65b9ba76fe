"""Malformed requests generated from a seed, for `benchmarks.fuzz`. Each case depends only on seed and index.

    case = Malformed(seed=1, folder=folder).case(17)     # .kind .method .data .timeout .alone

KINDS lists the kinds. Requests are bytes; the protocol buffers do not need TensorFlow.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import hostile_configs
from benchmarks.well_formed import HEALTH, METHODS, MODEL, PREDICT, PREDICTION, RELOAD, WellFormed
from components import signatures
from serving import tensors

TIMEOUT = 30.0

_BAD_TEXT = (b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"a\xc3", b"\x80")
_ODD = ("\0", "a\0b", "\n", "a\r\nb", "{}", "%s%n", "../..", "é" * 300, "\U0001f4a5", "a" * 100_000)
_NAMES = ("", "nope", "a", "b", *_ODD)
_POWERS = (16, 20, 31, 32, 40, 62)
_SIZES = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 255, *(2**power for power in _POWERS), 2**31 - 1, 2**63 - 1)
_UNSIGNED = ("uint32_val", "uint64_val")
_COMPLEX = ("scomplex_val", "dcomplex_val")
_FIELDS = ("float_val", "double_val", "half_val", "int_val", "int64_val", *_UNSIGNED, *_COMPLEX)
_TYPE_NAMES = ("", *(f"tensorflow::{kind}" for kind in ("TensorList", "TensorMap", "data::Optional")), "x" * 999)
_LIST, _VARINT = 2, 0


class Case(NamedTuple):
    """A request: its method's path, its bytes, its deadline in seconds, and whether it can change the served models."""

    kind: str
    method: str
    data: bytes
    timeout: float = TIMEOUT
    alone: bool = False


class Malformed(WellFormed):
    """Cases by index, determined by the seed. `folder` is the base path of the served model, for hostile
    configs."""

    def __init__(self, seed: int, folder: str):
        super().__init__(folder)
        self._seed = seed

    def case(self, index: int) -> Case:
        """The case number `index`."""
        draw = random.Random(f"{self._seed}/{index}")
        kind = draw.choice(KINDS)
        method, data = _MAKERS[kind](self, draw)
        # A nearly expired deadline counts as malformed.
        timeout = TIMEOUT if draw.random() < 0.98 else draw.choice((1e-6, 1e-3, 0.01))
        return Case(kind, method, data, timeout, method == RELOAD)

    def cases(self, count: int) -> Iterator[tuple[int, Case]]:
        """The first `count` cases with their indices."""
        return ((index, self.case(index)) for index in range(count))

    def random_bytes(self, draw: random.Random) -> tuple[str, bytes]:
        return draw.choice(METHODS), draw.randbytes(draw.choice((1, 2, 7, 50, 300, 4000, 100_000)))

    def mutated(self, draw: random.Random) -> tuple[str, bytes]:
        method, data = self.good(draw)
        return method, mutate(draw, data)

    def truncated(self, draw: random.Random) -> tuple[str, bytes]:
        method, data = self.good(draw)
        return method, data[: draw.randrange(len(data))]

    def wrong_method(self, draw: random.Random) -> tuple[str, bytes]:
        _, data = self.good(draw)
        known = draw.choice(METHODS[:4])
        bad = (
            "/",
            "//",
            "/x",
            "/x/y/z",
            "/" + "m" * 5000,
            known + "s",
            known.lower(),
            known[:-1],
            known + "/",
            "/tensorflow./Predict",
        )
        return draw.choice((*bad, "/grpc.health.v1.Health/Nope", "/\u00e9/\u00e9", "/%00/%ff")), data

    def wrong_service(self, draw: random.Random) -> tuple[str, bytes]:
        _, data = self.good(draw)
        return draw.choice(METHODS), data

    def empty(self, draw: random.Random) -> tuple[str, bytes]:
        return draw.choice(METHODS), b""

    def shape(self, draw: random.Random) -> tuple[str, bytes]:
        request, tensor = self._broken_input(draw)
        _reshape(draw, tensor)
        return PREDICT, request.SerializeToString(deterministic=True)

    def dtype(self, draw: random.Random) -> tuple[str, bytes]:
        request, tensor = self._broken_input(draw)
        tensor.dtype = draw.choice((draw.randrange(0, 35), draw.randrange(100, 135), draw.randrange(-(2**31), 2**31)))
        if draw.random() < 0.5:
            tensor.tensor_content = draw.randbytes(draw.randrange(0, 200))
        _add_values(draw, tensor)
        return PREDICT, request.SerializeToString(deterministic=True)

    def special_dtype(self, draw: random.Random) -> tuple[str, bytes]:
        """Strings with content, resources and variants."""
        request, tensor = self._broken_input(draw)
        tensor.dtype = draw.choice((7, 20, 21))
        if draw.random() < 0.3:
            _reshape(draw, tensor)
        if draw.random() < 0.3:
            tensor.tensor_content = draw.randbytes(draw.randrange(0, 100))
        tensor.string_val.extend(draw.randbytes(3) for _ in range(draw.randrange(3)))
        for _ in range(draw.randrange(4)):
            handle = tensor.resource_handle_val.add(device=_name(draw), container=_name(draw), name=_name(draw))
            handle.hash_code = draw.getrandbits(64)
            handle.maybe_type_name = draw.choice(_TYPE_NAMES)
            item = handle.dtypes_and_shapes.add(dtype=draw.randrange(0, 150))
            item.shape.dim.add(size=draw.choice(_SIZES))
        for _ in range(draw.randrange(4)):
            value = tensor.variant_val.add(
                type_name=draw.choice(_TYPE_NAMES), metadata=draw.randbytes(draw.randrange(40))
            )
            if draw.random() < 0.5:
                _broken_tensor(draw, value.tensors.add())
        return PREDICT, request.SerializeToString(deterministic=True)

    def deep(self, draw: random.Random) -> tuple[str, bytes]:
        """Tensors in variants in tensors, groups in groups."""
        depth = draw.choice((3, 20, 24, 25, 32, 33, 34, 49, 50, 51, 100, 500))
        if draw.random() < 0.3:
            return draw.choice(METHODS), b"\x0b" * depth + b"\x0c" * draw.choice((0, depth, depth + 1))
        data = b"\x08\x15"
        for _ in range(depth):
            variant = _field(1, b"tensorflow::TensorList") + _field(3, data)
            data = b"\x08\x15" + _field(15, variant)
        good = self.predict(draw).SerializeToString(deterministic=True)
        return PREDICT, good + _field(2, _field(1, draw.choice((b"a", b"b", b"examples"))) + _field(2, data))

    def invalid_text(self, draw: random.Random) -> tuple[str, bytes]:
        method, data = self.good(draw)
        spec = _field(1, draw.choice(_BAD_TEXT)) if draw.random() < 0.5 else _field(3, draw.choice(_BAD_TEXT))
        alias = _field(2, _field(1, draw.choice(_BAD_TEXT)) + _field(2, b"\x08\x09"))
        return method, data + draw.choice((_field(1, spec), alias, _field(3, draw.choice(_BAD_TEXT))))

    def huge(self, draw: random.Random) -> tuple[str, bytes]:
        """A few bytes that declare a huge tensor."""
        request, tensor = self._broken_input(draw)
        exponents = sorted(draw.randrange(0, 34) for _ in range(draw.randrange(0, 3)))
        _set_shape(
            tensor,
            [
                2 ** (high - low)
                for low, high in zip((0, *exponents), (*exponents, draw.randrange(20, 34)), strict=True)
                if high >= low
            ],
        )
        return PREDICT, request.SerializeToString(deterministic=True)

    def many(self, draw: random.Random) -> tuple[str, bytes]:
        """Many inputs, filters, tasks or metadata fields."""
        count = draw.choice((3, 3, 100, 100, 1000))
        request = self.predict(draw)
        if draw.random() < 0.3:
            request.output_filter.extend(draw.choice(("sum", "x", f"{number}")) for number in range(count))
        elif draw.random() < 0.5:
            for number in range(count):
                request.inputs[f"a{number}"].dtype = 9
        else:
            spec = request.model_spec
            metadata = self.apis.metadata.GetModelMetadataRequest(
                model_spec=spec, metadata_field=["signature_def"] * count
            )
            metadata.metadata_field.extend(["nope"] * draw.randrange(2))
            return PREDICTION + "GetModelMetadata", metadata.SerializeToString(deterministic=True)
        return PREDICT, request.SerializeToString(deterministic=True)

    def names(self, draw: random.Random) -> tuple[str, bytes]:
        """Unknown names, versions, labels and aliases."""
        method, data = self.good(draw, methods=METHODS[:3])
        request = self.messages()[method].FromString(data)
        spec = request.model_spec
        spec.name = draw.choice((MODEL, _name(draw)))
        spec.signature_name = draw.choice((signatures.ADD_BITS, "__saved_model_init_op", _name(draw)))
        if draw.random() < 0.4:
            spec.version.value = draw.choice(_SIZES)
        elif draw.random() < 0.5:
            spec.version_label = _name(draw)
        if method == PREDICT and draw.random() < 0.5:
            tensor = request.inputs.pop(draw.choice(sorted(request.inputs)))
            request.inputs[_name(draw)].CopyFrom(tensor)
            request.output_filter.extend(_name(draw) for _ in range(draw.randrange(3)))
        return method, request.SerializeToString(deterministic=True)

    def examples(self, draw: random.Random) -> tuple[str, bytes]:
        """serving_default with invalid examples, or examples that are not sums."""
        request = self.apis.predict.PredictRequest(model_spec=self.spec(signatures.SERVING_DEFAULT))
        values = [
            mutate(draw, self.example(draw)) if draw.random() < 0.7 else self._wrong_example(draw)
            for _ in range(draw.randrange(4))
        ]
        tensor = tensors.string_tensor(values)
        if draw.random() < 0.3:
            _reshape(draw, tensor)
        request.inputs[signatures.EXAMPLES].CopyFrom(tensor)
        return PREDICT, request.SerializeToString(deterministic=True)

    def values(self, draw: random.Random) -> tuple[str, bytes]:
        """Tensors of the right dtypes and ranks with wrong values or sizes."""
        request = self.predict(draw)
        for _, tensor in sorted(request.inputs.items()):
            if draw.random() < 0.6:
                shape = [draw.choice((0, 1, 2, 3, 8, 600)) for _ in range(draw.choice((0, 1, 2, 2, 2, 3)))]
                _set_shape(tensor, shape)
                tensor.tensor_content = b""
                for field in ("string_val", *_FIELDS):
                    tensor.ClearField(field)
                _add_values(draw, tensor)
                tensor.string_val.extend(draw.randbytes(draw.choice((0, 1, 1, 5))) for _ in range(draw.randrange(4)))
        return PREDICT, request.SerializeToString(deterministic=True)

    def reload(self, draw: random.Random) -> tuple[str, bytes]:
        request = self.apis.management.ReloadConfigRequest(config=hostile_configs.config(draw, MODEL, self.folder))
        data = request.SerializeToString(deterministic=True)
        return RELOAD, mutate(draw, data) if draw.random() < 0.3 else data

    def health(self, draw: random.Random) -> tuple[str, bytes]:
        data = _field(1, draw.choice((b"", b"PredictionService", b"nope", b"x" * 10_000, *_BAD_TEXT)))
        return HEALTH + draw.choice(("Check", "Watch")), mutate(draw, data) if draw.random() < 0.3 else data

    def _broken_input(self, draw: random.Random) -> tuple[Any, Any]:
        """A request, and one of its tensors to break."""
        request = self.predict(draw)
        return request, request.inputs[draw.choice(sorted(request.inputs))]

    def _wrong_example(self, draw: random.Random) -> bytes:
        example = self.apis.example.Example()
        for name in draw.sample((signatures.A, signatures.B, "c", ""), draw.randrange(5)):
            feature = example.features.feature[name]
            match draw.randrange(4):
                case 0:
                    integers = (draw.choice((0, 1, 2, -1, 2**63 - 1)) for _ in range(draw.randrange(20)))
                    feature.int64_list.value.extend(integers)
                case 1:
                    feature.float_list.value.extend([0.0, float("nan")])
                case 2:
                    feature.bytes_list.value.extend([b"\x01", b""])
                case 3:
                    feature.SetInParent()
        return example.SerializeToString(deterministic=True)


def mutate(draw: random.Random, data: bytes) -> bytes:
    """`data` with one to four changes: bits flipped, bytes set, inserted, removed, duplicated or moved."""
    mutant = bytearray(data)
    for _ in range(draw.randrange(1, 5)):
        at = draw.randrange(len(mutant) + 1)
        end = min(len(mutant), at + draw.choice((1, 2, 8, 100)))
        match draw.randrange(5):
            case 0:
                mutant[at:end] = bytes(byte ^ 1 << draw.randrange(8) for byte in mutant[at:end])
            case 1:
                mutant[at:end] = draw.choice((b"\x00", b"\xff", b"\x80", b"\x7f")) * (end - at)
            case 2:
                mutant[at:at] = draw.randbytes(draw.choice((1, 2, 10)))
            case 3:
                del mutant[at:end]
            case 4:
                mutant[at:at] = mutant[at:end] * draw.choice((1, 1, 50))
    return bytes(mutant)


def _broken_tensor(draw: random.Random, tensor: Any) -> None:
    tensor.dtype = draw.choice((1, 3, 7, 9, 20, 21, 99))
    _reshape(draw, tensor)
    _add_values(draw, tensor)


def _reshape(draw: random.Random, tensor: Any) -> None:
    rank = draw.choice((0, 1, 1, 1, 2, 2, 2, 3, 3, 8, 9, draw.choice((254, 255, 300))))
    _set_shape(tensor, [draw.choice(_SIZES if rank < 4 else (0, 1, 1, 2, -1)) for _ in range(rank)])
    if draw.random() < 0.2:
        tensor.tensor_shape.unknown_rank = True


def _set_shape(tensor: Any, shape: list[int]) -> None:
    del tensor.tensor_shape.dim[:]
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)


def _add_values(draw: random.Random, tensor: Any) -> None:
    field = draw.choice(_FIELDS)
    numbers = (0, 1, 2) if field in _UNSIGNED else (0, 1, 2, -1, 2**31 - 1)
    getattr(tensor, field).extend(draw.choice(numbers) for _ in range(draw.randrange(20)))


def _name(draw: random.Random) -> str:
    return draw.choice(_NAMES)


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field on the wire."""
    return _varint(number << 3 | _LIST) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


_MAKERS: dict[str, Callable[[Malformed, random.Random], tuple[str, bytes]]] = {
    "random bytes": Malformed.random_bytes,
    "mutated": Malformed.mutated,
    "truncated": Malformed.truncated,
    "wrong method": Malformed.wrong_method,
    "wrong service": Malformed.wrong_service,
    "empty": Malformed.empty,
    "shape": Malformed.shape,
    "dtype": Malformed.dtype,
    "special dtype": Malformed.special_dtype,
    "deep": Malformed.deep,
    "invalid UTF-8": Malformed.invalid_text,
    "huge": Malformed.huge,
    "many": Malformed.many,
    "names": Malformed.names,
    "examples": Malformed.examples,
    "values": Malformed.values,
    "reload": Malformed.reload,
    "health": Malformed.health,
}
# Weights of the kinds: a config change stops everything else for a moment.
_OFTEN = ("truncated", "shape", "dtype", "special dtype", "examples", "values")
_WEIGHTS = {"mutated": 8, "names": 2, "random bytes": 2, **dict.fromkeys(_OFTEN, 4)}
KINDS = tuple(kind for kind in _MAKERS for _ in range(_WEIGHTS.get(kind, 1)))
