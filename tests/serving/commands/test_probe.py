"""`bitsum probe` against a server that adds, one that adds wrongly, and a missing one."""

import json
import random

import pytest
import tensorflow as tf

from tests.serving.conftest import bitsum
from tests.support.examples import example_of


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Two TFRecord files, one of them compressed, with 43 examples; those of the second carry into ones."""
    draw = random.Random(1)
    folder = tmp_path_factory.mktemp("examples")
    for name, compression, lengths in (("short", "GZIP", [1, 2, 5, 8] * 10), ("long", "", [100, 1000, 5000])):
        with tf.io.TFRecordWriter(str(folder / name), compression) as writer:
            for length in lengths:
                writer.write(example_of(draw.getrandbits(length), draw.getrandbits(length), length))
    return [folder / "short", folder / "long"]


def test_a_server_that_adds(server, examples):
    code, out, err = bitsum("probe", server.target, "--examples", *examples, "--json")
    report = json.loads(out)
    assert (
        code == 0 and err == f"{server.target} has no version of bitsum with the label stable: asking for the newest\n"
    )
    assert report["asked"] == report["right"] == 43 * 3 and report["version"] == 1
    assert (
        report["wrong"] == []
        and report["errors"] == {}
        and 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"]
    )


def test_the_text_report_is_one_line(server, examples):
    code, out, _ = bitsum("probe", server.target, "--examples", *examples, "--count", 10, "--signature", "add_bits")
    assert code == 0 and out.count("\n") == 1 and "10 of 10 answers right" in out


def test_no_server(examples):
    code, out, _ = bitsum("probe", "127.0.0.1:1", "--examples", *examples, "--json", "--signature", "add_bits")
    report = json.loads(out)
    assert code == 1 and report["errors"] == {"UNAVAILABLE": report["asked"]} and report["right"] == 0
    assert "no model server answers at 127.0.0.1:1" in report["first_error"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--examples", "absent"], 1, "cannot read absent"),
        (["--examples", __file__], 1, "is this a TFRecord file?"),
        (["--examples", "/dev/null"], 1, "no examples"),
        (["--examples", "x", "--count=0"], 2, "--count must be at least 1"),
        (["--rate=0"], 2, "--rate and --report_every must be more than 0"),
        (["--duration=-1"], 2, "--duration -1: must be 0"),
        (["--duration=1", "--certificate=x"], 2, "omit --duration"),
        (["--metrics_port=70000"], 2, "between 0 and 65535"),
        (["--tls_ca=absent"], 2, "absent"),
        (["--certificate="], 1, "is this the folder of a SavedModel?"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(server, arguments, code, words):
    done, out, err = bitsum("probe", server.target, *arguments)
    assert (done, out, err.count("\n")) == (code, "", 1) and words in err


def test_wrong_usage():
    assert bitsum("probe")[0] == 2
    assert bitsum("probe", "127.0.0.1:1", "--count=1", "--duration=1")[0] == 2


def test_without_examples_the_questions_come_from_the_seed(server):
    code, out, _ = bitsum("probe", server.target, "--seed", 3, "--count", 8, "--json")
    report = json.loads(out)
    # One of the first four questions is long and goes through step only.
    assert code == 0 and report["asked"] == report["right"] == 3 * 8 - 2 and report["versions"] == {"1": 22}


def test_with_examples_and_a_seed_half_of_the_questions_come_from_each(server, examples):
    code, out, _ = bitsum(
        "probe", server.target, "--examples", *examples, "--seed", 3, "--count", 8, "--json", "--signature", "step"
    )
    assert code == 0 and json.loads(out)["asked"] == 8
    code, out, _ = bitsum(
        "probe", server.target, "--examples", *examples, "--seed", 3, "--duration", 0.5, "--rate", 50, "--json"
    )
    assert code == 0 and json.loads(out)["asked"] > 0
