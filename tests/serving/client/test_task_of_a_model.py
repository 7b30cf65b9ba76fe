"""A model for another task refuses calls and the error names its task; over an in-memory channel."""

import random

import pytest

from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION, TASKS
from pipeline import cli
from serving.client import InvalidRequest
from serving.probing.prober import TimedClient, probe
from serving.probing.questions import Question
from tests.support.in_memory import Channel

pytestmark = pytest.mark.fast

LONG = 2**20_000
# One pair in one call; many pairs and long pairs, for which the client reads the metadata.
PAIRS = {
    "a lone pair": [(13, 29)],
    "many pairs": [(2**64 - n, n) for n in range(1, 100)],
    "a long pair": [(LONG - 1, 1)],
}


def old(task, **options):
    """A version of the first export format: with the signature names of addition, whatever its task."""
    return Channel(task=task, verb="add", **options)


def refused(run, *words):
    with pytest.raises(InvalidRequest) as refusal:
        run()
    text = str(refusal.value)
    assert "\n" not in text and [word for word in ("bitsum at memory (version 1)", *words) if word not in text] == [], (
        text
    )


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "bits alone"])
@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_call_names_the_task(task, pairs, packed, make):
    for other in TASKS.values():
        client = make(Channel(task=other, packed=packed))
        if other is task:
            assert client.apply(task, pairs) == [task.meaning(*pair) for pair in pairs]
        else:
            words = (
                f"does not {task.verb}",
                f"no signature {task.verb}_bits but {other.verb}_bits",
                f"bitsum {other.verb}",
            )
            refused(lambda client=client: client.apply(task, pairs), *words)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_streams_name_the_task(task, make):
    a, b = 3 * 2**999, 2**1000 - 1
    size = len(a.to_bytes(126, "little"))
    operands = [[a.to_bytes(size, "little")], [b.to_bytes(size, "little")]]
    for other in TASKS.values():
        channel = Channel(task=other)
        if other is task:
            written = b"".join(make(channel).add_stream(*operands, task))
            assert task.read(int.from_bytes(written, "little"), 8 * len(written)) == task.meaning(a, b)
        else:
            refused(lambda channel=channel: list(make(channel).add_stream(*operands, task)), f"does not {task.verb}")
            assert channel.predictions == []


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
def test_a_version_of_the_first_format_needs_signature_for_other_tasks(pairs, make):
    assert make(old(ADDITION)).apply(ADDITION, pairs) == [a + b for a, b in pairs]
    for task in (SUBTRACTION, COMPARISON):
        refused(lambda task=task: make(old(task)).apply(task, pairs), f"does not {task.verb}", "--signature add_bits")
        assert make(old(task), signature="add_bits").apply(task, pairs) == [task.meaning(*pair) for pair in pairs]
    refused(
        lambda: make(Channel(task=SUBTRACTION), signature="add_bits").apply(SUBTRACTION, pairs), "without --signature"
    )


def test_a_stream_of_the_first_format_uses_the_given_signature(make):
    written = b"".join(make(old(SUBTRACTION), signature="add_bits").add_stream([b"\x0d"], [b"\x1d"], SUBTRACTION))
    assert int.from_bytes(written, "little", signed=True) == -16


def test_task_names_cost_no_extra_call(make):
    channel = Channel(task=SUBTRACTION)
    client = make(channel)
    assert client.subtract(13, 29) == -16 and len(channel.requests) == 1
    for _ in range(2):
        client.apply(SUBTRACTION, PAIRS["many pairs"])
    # The metadata once, which show whether the model packs bits, and one call each.
    assert len(channel.requests) == 4


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "bits alone"])
def test_a_version_for_another_task_does_not_continue_a_long_number(packed, make):
    def swap(signature, outputs):
        channel.version, channel.task = 2, SUBTRACTION

    channel = Channel(swap, packed=packed)
    with pytest.raises(InvalidRequest, match=r"bitsum at memory \(version 2\) does not add"):
        make(channel).add(LONG**20, 1)


def test_one_client_follows_a_model_that_changes_its_task(make):
    channel = Channel()
    client = make(channel)
    pairs = PAIRS["many pairs"]
    for version, task in enumerate([ADDITION, SUBTRACTION, ADDITION], start=2):
        channel.version, channel.task = version, task
        assert client.apply(task, pairs) == [task.meaning(*pair) for pair in pairs]


def test_an_unknown_signature_is_refused_before_any_call(make):
    for name in ("step", "add_packed", "nope_bits"):
        with pytest.raises(
            ValueError, match=f"signature = '{name}' must be one of add_bits, subtract_bits, compare_bits"
        ):
            make(Channel(), signature=name)


def test_the_commands(serve, capsys):
    serve(Channel())
    assert cli.main(["subtract", "13", "29"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    assert (
        "it computes addition: call it with bitsum add; if its export format is 1 and it "
        "does subtract, give --signature add_bits"
    ) in captured.err

    serve(old(SUBTRACTION))
    assert cli.main(["subtract", "13", "29"]) == 1
    assert cli.main(["subtract", "13", "29", "--signature", "add_bits"]) == 0
    assert capsys.readouterr().out == "-16\n"
    serve(Channel(task=COMPARISON))
    assert cli.main(["compare", "29", "13"]) == 0
    assert capsys.readouterr().out == "True\n"


def questions():
    draw = random.Random(2)
    lengths = [1, 5, 8, 100, 20_000]
    return [Question(draw.getrandbits(n), draw.getrandbits(n), n, streamed=n > 4096) for n in lengths]


def asked(channel, task, wanted=None):
    return probe(TimedClient("memory", "bitsum", channel=channel), task, questions(), wanted)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "bits alone"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_prober_uses_the_signature_names_of_the_model(task, packed):
    for verb in (task.verb, "add"):
        report = asked(Channel(task=task, packed=packed, verb=verb), task)
        names = {"serving_default", f"{verb}_bits", "step"} | ({f"{verb}_packed"} if packed else set())
        assert report.all_right and set(report.by_signature) == names


def test_the_prober_uses_the_given_signatures():
    for name in ("add_bits", "add_packed"):
        assert asked(old(SUBTRACTION), SUBTRACTION, [name]).all_right
        report = asked(Channel(task=SUBTRACTION), SUBTRACTION, [name])
        assert report.right == 0 and "does not add" in report.first_error


@pytest.mark.parametrize("verbs", [("add", None), (None, "add")], ids=["to its own names", "to those of addition"])
def test_the_prober_continues_when_the_next_version_has_other_signature_names(verbs):
    def swap(signature, outputs):
        if len(channel.predictions) == 2:
            channel.version, channel._verb = 2, verbs[1]

    channel = Channel(swap, SUBTRACTION, verb=verbs[0])
    report = asked(channel, SUBTRACTION)
    assert report.all_right and report.version == 2 and set(report.versions) == {"1", "2"}
