"""The models that the servers serve: written by make_model.py, copied, damaged and furnished with warmup requests."""

import contextlib
import fcntl
import pathlib
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator

from components.formats import tfrecords
from tests.conformance import recording, wire

WARMUP = "assets.extra/tf_serving_warmup_requests"
A, B = ((9, 9), (1, 2)), ((1, 0), (3, 4))


def make(folder: pathlib.Path) -> pathlib.Path:
    """The folder `folder`/add with versions 1, 2 and 3, written at the first call; several processes may ask for it at
    once."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "add"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.exists():
            beside = folder / "beside"
            subprocess.run([sys.executable, recording.MAKE_MODEL, beside], check=True, capture_output=True, timeout=300)
            beside.rename(base)
    return base


def put(made: pathlib.Path, version: int, base: pathlib.Path, name: str | None = None) -> pathlib.Path:
    """`version` of the model `made` appears whole in `base`, under its number or under `name`."""
    base.mkdir(parents=True, exist_ok=True)
    beside = base.parent / f"{base.name}.beside"
    shutil.copytree(made / str(version), beside)
    return beside.rename(base / (name or str(version)))


@contextlib.contextmanager
def appearing(
    made: pathlib.Path, version: int, base: pathlib.Path, number: int | None = None
) -> Iterator[pathlib.Path]:
    """A copy of `version` to be damaged or furnished within the context, which then appears in `base` whole, as
    `number` if given."""
    beside = base.parent / f"{base.name}.beside"
    shutil.copytree(made / str(version), beside)
    yield beside
    base.mkdir(parents=True, exist_ok=True)
    beside.rename(base / str(number or version))


def half_written(made: pathlib.Path, version: int, base: pathlib.Path) -> pathlib.Path:
    """`version` in `base` without its saved_model.pb."""
    return pathlib.Path(shutil.copytree(made / str(version) / "variables", base / str(version) / "variables")).parent


def adding(name: str = "m", version: int | None = None, label: str | None = None, a: tuple = A, b: tuple = B) -> bytes:
    """A request for the sums of the digits `a` and `b`: (9 + 90 * 1, ...) least significant first."""
    request = wire.spec_request(wire.PREDICT, name, version, label)
    for alias, rows in (("a", a), ("b", b)):
        digits(request.inputs[alias], rows)
    return request.SerializeToString()


def digits(tensor, rows: Iterable) -> None:
    """Fill in a TensorProto: int64 [B, T], as tensor_content."""
    rows = [list(row) for row in rows]
    tensor.dtype = wire.protos().types.DT_INT64
    for size in (len(rows), len(rows[0]) if rows else 0):
        tensor.tensor_shape.dim.add(size=size)
    flat = [digit for row in rows for digit in row]
    tensor.tensor_content = struct.pack(f"<{len(flat)}q", *flat)


def looping(steps: int, name: str = "m") -> bytes:
    """A request that keeps the server busy for `steps` of a loop."""
    request = wire.spec_request(wire.PREDICT, name)
    request.model_spec.signature_name = "slow"
    request.inputs["n"].dtype = wire.protos().types.DT_INT64
    request.inputs["n"].tensor_shape.SetInParent()
    request.inputs["n"].int64_val.append(steps)
    return request.SerializeToString()


def log_of(request: bytes) -> bytes:
    """A warmup record with this PredictRequest."""
    log = wire.protos().prediction_log.PredictionLog()
    log.predict_log.request.MergeFromString(request)
    return log.SerializeToString()


def write_warmup(version_folder: pathlib.Path, records: Iterable[bytes]) -> pathlib.Path:
    """The warmup file of a version, TFRecords of `records`."""
    path = version_folder / WARMUP
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(map(tfrecords.framed, records)))
    return path
