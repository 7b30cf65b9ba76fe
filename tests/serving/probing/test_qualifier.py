"""The qualifier's calls, and the answers it accepts, refuses or distrusts; the server is a fake."""

import json
import math
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest

from components import results
from serving import tensors
from serving.errors import BadResponse, InvalidRequest
from serving.probing import float_patterns, qualification, qualifier

pytestmark = pytest.mark.fast

U = 2.0**-24


class Server:
    """Answers like the sweep model with correctly rounded activations; `change` spoils outputs by name."""

    target, model_name = "somewhere:1", "bitsum-activations"

    def __init__(self, change=lambda signature, outputs: None, units=(2,)):
        self.asked = []
        self._change, self._units = change, units

    def metadata(self):
        names = [f"{kind}_{units}" for units in self._units for kind in ("sweep", "results")]
        return SimpleNamespace(version=4, signatures=dict.fromkeys(names))

    def predict(self, signature, inputs, outputs, version):
        assert version == 4
        kind, _, units = signature.partition("_")
        inputs = {name: tensors.decode(proto) for name, proto in inputs.items()}
        (rows,) = inputs["rows"].values
        size = rows * int(units)
        computed = self._sweep(inputs, rows, size) if kind == "sweep" else self._results(inputs["patterns"].values)
        self._change(kind, computed)
        made = {}
        for name in outputs:
            value = np.asarray(computed[name])
            made[name] = tensors.Tensor(
                "int64" if value.dtype == np.int64 else "float32", value.shape, value.ravel().tolist()
            )
        return SimpleNamespace(outputs=made)

    def _sweep(self, inputs, rows, size):
        starts, (steps,) = list(inputs["starts"].values), inputs["steps"].values
        self.asked += [(start, steps * size, rows) for start in starts]
        one = self._results([start for start in starts if float_patterns.is_finite(start)][:1] or [0])
        return {
            "error": np.array([one["sigmoid_error"][0], one["tanh_error"][0]], np.float32),
            "pattern": np.array([next(filter(float_patterns.is_finite, starts), 0)] * 2, np.int64),
            "result": np.array([one["sigmoid"][0], one["tanh"][0]], np.float32),
            "least": np.array([0.0, -1.0], np.float32),
            "greatest": np.array([1.0, 1.0], np.float32),
            "evaluated": np.int64(sum(float_patterns.count_finite(start, steps * size) for start in starts)),
        }

    def _results(self, patterns):
        computed = {}
        for name, function in (("sigmoid", lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0), ("tanh", math.tanh)):
            exact = [function(float_patterns.value(pattern)) for pattern in patterns]
            computed[name] = np.array(exact, np.float32)
            computed[f"{name}_error"] = np.abs(computed[name] - np.array(exact)).astype(np.float32)
        return {**computed, "complement": np.zeros(len(patterns), np.float32)}


def qualified(change=lambda kind, outputs: None, **options):
    return qualifier.Qualifier(Server(change, **options), random.Random(1)).run(False, 500)


def test_correctly_rounded_activations_qualify():
    measured = qualified(units=(2, 5))
    assert measured.qualified and measured.complaint is measured.distrust is None
    assert measured.shapes == [(rows, units) for units in (2, 5) for rows in (1, 3, 64, 65, 2048)]
    assert (
        measured.findings["sigmoid"].error == pytest.approx(0.5 * U, rel=0.05)
        and measured.findings["sigmoid"].complaint is None
    )
    report = json.loads(results.to_json(measured.report()))
    assert report["qualified"] and report["version"] == 4 and report["activations"]["tanh"]["headroom"] > 50
    assert measured.line().endswith("; qualified")


def test_all_floats_covers_every_pattern():
    server = Server(units=(7, 16))
    measured = qualifier.Qualifier(server, random.Random(1)).run(True, 100)
    blocks = [(start, count) for start, count, rows in server.asked if rows == 4096]
    assert len(blocks) == 256 and blocks[0][0] == 0 and all(count == 2**24 for _, count in blocks)
    assert [start for start, _ in blocks] == list(range(0, 2**32, 2**24))
    assert measured.all_floats and measured.evaluated > 2 * 2 * 255 * 2**23


def test_each_shape_is_sampled_in_every_binade_and_at_the_worst_floats():
    server = Server()
    qualifier.Qualifier(server, random.Random(1)).run(False, 100)
    for rows in (1, 3, 64, 65, 2048):
        ranges = [(start, count) for start, count, asked in server.asked if asked == rows]
        binades = {start >> 23 for start, _ in ranges}
        # One step of the widest shape covers thousands of neighbours; there the single points cover every binade.
        assert binades >= {*range(255), *range(256, 511)} if rows < 2048 else len(binades) > 50
        assert all(any(start <= float_ < start + count for start, count in ranges) for float_ in qualifier.NOTORIOUS)


def spoiled(kind, **values):
    """Sets outputs of the calls of `kind`: value, or (index, value)."""

    def change(asked, outputs):
        if asked == kind:
            for name, value in values.items():
                if isinstance(value, tuple):
                    outputs[name][value[0]] = value[1]
                else:
                    outputs[name] = value

    return change


REFUSED = [
    (
        spoiled("sweep", error=(0, math.inf), result=(0, math.nan)),
        r"sigmoid\(.*\) is nan in the shape \[1, 2\], outside of \[0, 1\]",
    ),
    (
        spoiled("sweep", error=(1, math.inf), result=(1, -(1 + 2**-23))),
        r"tanh\(.*\) is -0x1.0000020000000p\+0 .*, outside of \[-1, 1\]",
    ),
    (spoiled("sweep", greatest=(0, 1 + 2**-23)), r"sigmoid leaves \[0, 1\]: 0.0 to 1.0000001192092896"),
    (spoiled("sweep", least=(1, math.nan)), r"tanh leaves \[-1, 1\]: -inf to 1.0"),
    (
        spoiled("results", sigmoid=(3, 0.123)),
        r"sigmoid\(.*\) is 0x1.f7ceda.* off by .* u; the allowance of 16 u must be 4 times",
    ),
    (spoiled("results", tanh=(7, math.inf)), r"tanh\(.*\) is inf .* outside of \[-1, 1\]"),
    (
        spoiled("sweep", error=(0, 2 * U)),
        r"float64 cannot be trusted: it puts the error of sigmoid\(.*\) = .* at 2 u, the exact value at",
    ),
    (
        spoiled("sweep", error=(1, math.nan)),
        r"float64 cannot be trusted: it puts the error of tanh\(.*\) = .* at nan u",
    ),
    (
        spoiled("results", tanh_error=(9, math.inf)),
        r"float64 cannot be trusted: it puts the error of tanh\(.*\) = .* at inf u",
    ),
    (spoiled("results", complement=(2, 2**-24)), r"not exactly 1 in the shape \[1, 2\], so neither can be isolated"),
]


@pytest.mark.parametrize("change, words", REFUSED)
def test_excessive_errors_and_untrustworthy_servers_are_refused(change, words):
    measured = qualified(change)
    assert not measured.qualified and re.search(words, measured.complaint), measured.complaint
    report = json.loads(results.to_json(measured.report()))
    assert (
        not report["qualified"]
        and report["reason"] == measured.complaint
        and measured.line().endswith(measured.complaint)
    )


@pytest.mark.parametrize("name, allowed", [("sigmoid", 4 * U), ("tanh", 8 * U)])
def test_the_allowance_is_four_times_the_worst_error(name, allowed):
    for error, qualified in ((allowed, True), (math.nextafter(allowed, 1), False), (math.inf, False)):
        finding = qualification.Finding(name, error, at=2.0, result=0.9, shape=(1, 16), least=0.0, greatest=1.0)
        assert (finding.complaint is None) is qualified


BAD = [
    (spoiled("sweep", evaluated=np.int64(5)), "measured 5 floats instead of"),
    (spoiled("sweep", pattern=(0, 0x7F800000)), "returns the float pattern 2139095040, which is not finite"),
    (spoiled("sweep", pattern=(1, -(2**31))), "returns the float pattern -2147483648, which is not finite"),
    (spoiled("sweep", error=np.zeros(3, np.float32)), r"returned error as float32 \[3\], not float32 \[2\]"),
    (spoiled("results", tanh=np.zeros(1, np.float32)), r"returned tanh as float32 \[1\], not float32"),
    (spoiled("sweep", result=np.zeros(2, np.int64)), r"returned result as int64 \[2\], not float32 \[2\]"),
]


@pytest.mark.parametrize("change, words", BAD)
def test_answers_that_break_the_signatures_raise(change, words):
    with pytest.raises(BadResponse, match=words):
        qualified(change)


def test_a_model_without_the_signatures_is_refused():
    with pytest.raises(InvalidRequest, match="bitsum-activations at somewhere:1 has no signature sweep_UNITS"):
        qualified(units=())
