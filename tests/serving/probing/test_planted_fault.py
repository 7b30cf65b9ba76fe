"""A served copy of the certified model with one flipped bit of one weight: the prober detects and reports it."""

import json
import re

import numpy as np
import pytest

from components.model import export
from serving.client import AdderClient
from tests.serving.conftest import bitsum, serving
from tests.support import certified
from tests.support.cells import cell_of

# (weight, bit that is flipped): the sign of a weight of the logit makes half of all random sums of 24 bits wrong, that
# of the update gate's bias in a unit a tenth.
FAULTS = [("W_o", (5, 0), 31), ("b_z", (7,), 31)]


def flipped(weight, place, bit):
    weights = certified.arrays(certified.weights())
    weights[weight].view(np.uint32)[place] ^= np.uint32(1 << bit)
    return weights


def ask_again(client, wrong):
    """The server's answer to a wrong sum alone, asked again as in the report."""
    pair, length = (int(wrong["a"], 0), int(wrong["b"], 0)), wrong["outputs"] - 1
    if wrong["signature"] == "step":
        return client.outputs_streamed([pair], length, length // 2 + 1)[0]
    if wrong["signature"] == "add_packed":
        return client.outputs_packed([pair], length)[0]
    return client.outputs_at_once([pair], length)[0]


@pytest.fixture(scope="module", params=FAULTS, ids=lambda fault: fault[0])
def faulty(request, tmp_path_factory):
    base_path = tmp_path_factory.mktemp("faulty")
    export.save(cell_of(**flipped(*request.param)), str(base_path / "4"))
    with serving(base_path, "--server=embedded") as server:
        yield server


def test_the_model_as_it_was_proven_is_right(tmp_path):
    export.save(cell_of(), str(tmp_path / "served" / "3"))
    with serving(tmp_path / "served", "--server=embedded") as server:
        code, out, _ = bitsum("probe", server.target, "--count", 60, "--seed", 5, "--json")
    report = json.loads(out)
    assert (code, report["wrong"], report["errors"]) == (0, [], {})
    assert report["versions"] == {"3": report["asked"]} and report["asked"] > 3 * 60


@pytest.mark.parametrize("signature", ["serving_default", "add_bits", "step", "add_packed"])
def test_reported_wrong_sums_are_wrong_again(faulty, signature):
    code, out, err = bitsum("probe", faulty.target, "--count", 200, "--signature", signature, "--json")
    report = json.loads(out)
    assert code == 1 and not report["errors"] and 0 < report["wrong_count"] < report["asked"]
    assert report["right"] + report["wrong_count"] == report["asked"]
    assert len(report["wrong"]) == min(10, report["wrong_count"]) and err.count(": wrong: ") >= len(report["wrong"])
    with AdderClient(faulty.target) as client:
        for wrong in report["wrong"]:
            a, b, got, expected = (int(wrong[name], 0) for name in ("a", "b", "got", "expected"))
            assert a + b == expected != got and (wrong["signature"], wrong["version"], wrong["target"]) == (
                signature,
                4,
                faulty.target,
            )
            places = [place for place in range(wrong["outputs"]) if (got ^ expected) >> place & 1]
            assert (wrong["place"], wrong["places"], wrong["wrong_bits"]) == (places[0], places[:10], len(places))
            assert ask_again(client, wrong) != a + b


def test_the_lines_of_text_have_the_numbers(faulty):
    code, out, _ = bitsum("probe", faulty.target, "--count", 200, "--signature", "add_bits")
    lines = [line.partition(": wrong: ")[2] for line in out.splitlines() if ": wrong: " in line]
    assert code == 1 and lines
    for line in lines:
        statement, _, rest = line.partition(" by add_bits, not ")
        a, _, b, _, got = (int(word, 0) if word[0].isdigit() else word for word in statement.split())
        assert a + b != got and a + b == int(re.match(r"\w+", rest)[0], 0) and "version 4 answered" in rest
