"""Qualifies a model server for the theorem: its sigmoid and tanh must be within the checker's allowances for float32.

The server runs the sweep model of components.model.activation_sweep, whose docstring describes the signatures. It
measures its own float32 against its own float64. The exact values of a sample are enclosed here, without libm
(components.proof.interval), which exposes a server whose float64 is wrong. Imports neither TensorFlow nor numpy.
"""

import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from components.progress import report
from components.proof import certificate, interval
from serving import protos, tensors
from serving.client.connection import Connection
from serving.errors import BadResponse, InvalidRequest
from serving.probing import float_patterns
from serving.probing.qualification import ACTIVATIONS, LOWEST, MODEL_NAME, Finding, Qualification, in_u

# One word, a few, a batch, and one more than a whole number of vectors; carry-select runs up to 2048
# chunks in parallel.
ROWS = (1, 3, 64, 65, 2048)
POINTS = 4000

_ENCLOSURES = {"sigmoid": interval.sigmoid, "tanh": interval.tanh}

# The worst floats for the kernels of TensorFlow 2.16, found by a sweep of every float; part of every sample.
NOTORIOUS = (0x40DDC75D, 0x40BA7DF6, 0x3FF9B718, 0x3FE36293)
# Patterns per start: few, since a step costs the same in a small shape as in a large one.
_PATTERNS_PER_START = 32
# Floats of a sample in a wide shape, of which one step takes many.
_SAMPLE = 2**20
_NEIGHBOURS = 4096
_NEIGHBOUR_STEPS = 16
_BLOCK = 2**24
_BLOCK_ELEMENTS = 2**16
# Tolerance between two right values of an error, both computed in float64 and rounded to float32.
_TOLERANCE = 2.0**-40


def qualify(
    target: str,
    *,
    all_floats: bool = False,
    model_name: str = MODEL_NAME,
    deadline: float = 60.0,
    points: int = POINTS,
    seed: int = 1,
    credentials: Any = None,
) -> Qualification:
    """Measure the activations of the server at `target`, which serves the sweep model as `model_name`.

    Args:
        all_floats: also check every finite float32 in one shape, besides the sample in all shapes.
        deadline: seconds for each call; with `all_floats` a call covers 2^24 floats.
        points: floats whose exact values are enclosed here, in every shape.
        seed: seed of the sample.
        credentials: for TLS, as for Connection.

    Raises:
        ServingError: the server did not answer, or its answer breaks the signatures.
    """
    connection = Connection(target, model_name, deadline=deadline, attempts=1, credentials=credentials)
    try:
        return Qualifier(connection, random.Random(seed)).run(all_floats, points)
    finally:
        connection.close()


def _spread(starts: Sequence[int], shape: tuple[int, int]) -> Sequence[int]:
    """An even selection of `starts`, as many as the sample allows in this shape."""
    return starts[:: max(1, len(starts) * math.prod(shape) // _SAMPLE)]


class Qualifier:
    """One qualification, pinned to the version that answers first."""

    def __init__(self, connection: Connection, draw: random.Random):
        self._connection = connection
        self._draw = draw
        metadata = connection.metadata()
        self._version = metadata.version
        names = (re.fullmatch(r"sweep_([1-9][0-9]{0,3})", name, re.ASCII) for name in metadata.signatures)
        self._units = sorted(int(match[1]) for match in names if match)
        if not self._units:
            raise InvalidRequest(
                f"{connection.model_name} at {connection.target} has no signature sweep_UNITS: is it the sweep model?"
            )

    def run(self, all_floats: bool, points: int) -> Qualification:
        """As `qualify`."""
        shapes = [(rows, units) for units in self._units for rows in ROWS]
        self._qualification = Qualification(self._connection.target, self._version, all_floats, shapes)
        bulk = (_BLOCK_ELEMENTS // self._units[-1], self._units[-1])
        blocks = [([start], _BLOCK, bulk) for start in range(0, float_patterns.COUNT, _BLOCK)] if all_floats else []
        calls = [
            *((_spread(float_patterns.starts(self._draw), shape), _PATTERNS_PER_START, shape) for shape in shapes),
            *blocks,
        ]
        for done, call in enumerate(calls, start=1):
            self._sweep(*call)
            self._report(done, len(calls) + len(shapes))
        centers = {
            *NOTORIOUS,
            *(float_patterns.pattern(finding.at) for finding in self._qualification.findings.values()),
        }
        chosen = sorted({*float_patterns.points(self._draw, points), *centers})
        exact = {name: [_ENCLOSURES[name]((x, x)) for x in map(float_patterns.value, chosen)] for name in ACTIVATIONS}
        for done, shape in enumerate(shapes, start=len(calls) + 1):
            count = min(_NEIGHBOURS, _NEIGHBOUR_STEPS * math.prod(shape))
            self._sweep([float_patterns.around(center, count) for center in centers], count, shape)
            self._compare(chosen, exact, shape)
            self._report(done, len(calls) + len(shapes))
        return self._qualification

    def _sweep(self, starts: Sequence[int], count: int, shape: tuple[int, int]) -> None:
        """Let the server measure `count` or slightly more floats from each of `starts` on, and check its worst one."""
        rows, units = shape
        steps = -(-count // (rows * units))
        outputs = self._ask(
            f"sweep_{units}", {"starts": (starts, (len(starts),)), "steps": ([steps], ()), "rows": ([rows], ())}, _SWEPT
        )
        (evaluated,) = outputs["evaluated"]
        expected = sum(float_patterns.count_finite(start, steps * rows * units) for start in starts)
        if evaluated != expected:
            raise BadResponse(f"{self._connection.target} measured {evaluated} floats instead of {expected}")
        self._qualification.evaluated += len(ACTIVATIONS) * evaluated
        for index, finding in enumerate(self._qualification.findings.values()):
            claimed, pattern, result, least, greatest = (outputs[name][index] for name in list(_SWEPT)[:5])
            if not (0 <= pattern < float_patterns.COUNT and float_patterns.is_finite(pattern)):
                raise BadResponse(f"{self._connection.target} returns the float pattern {pattern}, which is not finite")
            x = float_patterns.value(pattern)
            self._note(finding, claimed, x, result, _ENCLOSURES[finding.name]((x, x)), shape)
            finding.spread(least, greatest)

    def _compare(
        self, chosen: Sequence[int], exact: Mapping[str, Sequence[interval.Interval]], shape: tuple[int, int]
    ) -> None:
        """Check the results of single floats here; `exact` has the enclosures of both activations."""
        size = (len(chosen),)
        kinds = dict.fromkeys(("sigmoid", "tanh", "sigmoid_error", "tanh_error", "complement"), (tensors.FLOAT, size))
        outputs = self._ask(f"results_{shape[1]}", {"patterns": (chosen, size), "rows": ([shape[0]], ())}, kinds)
        self._qualification.enclosed += len(ACTIVATIONS) * len(chosen)
        for name, finding in self._qualification.findings.items():
            for pattern, claimed, result, enclosure in zip(
                chosen, outputs[f"{name}_error"], outputs[name], exact[name], strict=True
            ):
                self._note(finding, claimed, float_patterns.value(pattern), result, enclosure, shape)
        zero, far = chosen.index(0), chosen.index(float_patterns.pattern(certificate.ACTIVATION_RANGE))
        if any(outputs["complement"]) or outputs["tanh"][zero] != 0.0 or outputs["sigmoid"][far] != 1.0:
            self._distrust(
                f"sigmoid(128) and tanh(128) are not exactly 1 in the shape {list(shape)}, so neither can be isolated"
            )

    def _note(
        self,
        finding: Finding,
        claimed: float,
        x: float,
        result: float,
        exact: interval.Interval,
        shape: tuple[int, int],
    ) -> None:
        error = math.inf
        if LOWEST[finding.name] <= result <= 1.0:
            error = math.nextafter(max(result - exact[0], exact[1] - result), math.inf)
        finding.note(error, x, result, shape)
        if error != claimed and not abs(error - claimed) <= _TOLERANCE:
            self._distrust(
                f"the server's float64 cannot be trusted: it puts the error of {finding.name}({x.hex()}) = "
                f"{result.hex()} at {in_u(claimed):.4g} u, the exact value at {in_u(error):.4g} u"
            )

    def _distrust(self, reason: str) -> None:
        self._qualification.distrust = self._qualification.distrust or reason

    def _report(self, done: int, of: int) -> None:
        errors = {f"{name}_u": in_u(finding.error) for name, finding in self._qualification.findings.items()}
        report("qualify", step=done, of=of, unit="calls", **errors)

    def _ask(
        self,
        signature: str,
        inputs: dict[str, tuple[Sequence[int], tuple[int, ...]]],
        kinds: Mapping[str, tuple[str, tuple[int, ...]]],
    ) -> dict[str, Sequence]:
        """The values of the outputs in `kinds`, {name: (dtype, shape)}; the inputs are int64."""
        tensors_in = {name: _int64_tensor(values, shape) for name, (values, shape) in inputs.items()}
        outputs = self._connection.predict(signature, tensors_in, list(kinds), self._version).outputs
        for name, kind in kinds.items():
            if (outputs[name].dtype, outputs[name].shape) != kind:
                raise BadResponse(
                    f"{self._connection.target} returned {name} as {outputs[name].dtype} {list(outputs[name].shape)}, "
                    f"not {kind[0]} {list(kind[1])}"
                )
        return {name: outputs[name].values for name in kinds}


_PAIR = (len(ACTIVATIONS),)
_SWEPT = {
    "error": (tensors.FLOAT, _PAIR),
    "pattern": (tensors.INT64, _PAIR),
    "result": (tensors.FLOAT, _PAIR),
    "least": (tensors.FLOAT, _PAIR),
    "greatest": (tensors.FLOAT, _PAIR),
    "evaluated": (tensors.INT64, ()),
}


def _int64_tensor(values: Sequence[int], shape: tuple[int, ...]) -> Any:
    apis = protos.load()
    proto = apis.tensor.TensorProto(dtype=apis.types.DT_INT64, int64_val=values)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto
