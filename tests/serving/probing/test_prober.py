"""serving.probing.prober and serving.probing.questions over an in-memory channel."""

import random

import grpc
import pytest
import tensorflow as tf

from components.formats import tfrecords
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION, TASKS
from serving import tensors
from serving.probing import questions
from serving.probing.prober import TimedClient, probe
from tests.support.examples import example, example_of
from tests.support.in_memory import UNITS, Channel, Failure

pytestmark = pytest.mark.fast

FIRST_BIT = {"place": 0, "places": [0], "wrong_bits": 1, "version": 1, "target": "memory"}
_ALL = ("serving_default", "add_bits", "step")


@pytest.fixture
def write(tmp_path):
    """A function: name, records -> path of a gzip TFRecord file."""

    def file(name, records):
        path = str(tmp_path / name)
        with tf.io.TFRecordWriter(path, "GZIP") as writer:
            for record in records:
                writer.write(record)
        return path

    return file


@pytest.fixture
def asked(write):
    draw = random.Random(1)
    lengths = [1, 5, 8, 16, 100] * 4
    return questions.spread(
        [write("data", [example_of(draw.getrandbits(n), draw.getrandbits(n), n) for n in lengths])], 100
    )


def ask(channel, asked, wanted=_ALL, task=ADDITION):
    return probe(TimedClient("memory", "bitsum", channel=channel), task, asked, wanted)


def test_a_server_that_adds_is_right_through_every_signature(asked):
    channel = Channel()
    report = ask(channel, asked)
    assert (report.asked, report.right, report.wrong_count, dict(report.errors)) == (60, 60, 0, {})
    assert report.all_right and report.version == 1 and len(report.latencies["step"]) > 3
    assert {request.model_spec.signature_name for request in channel.requests if hasattr(request, "inputs")} == set(
        _ALL
    )


@pytest.mark.parametrize("task", [SUBTRACTION, COMPARISON])
def test_other_tasks_are_probed_and_distinguished(asked, task):
    report = ask(Channel(task=task), asked, None, task)
    assert (report.asked, report.right, report.summary().task) == (80, 80, task.name)
    for other in TASKS.values():
        if other != task:
            assert not ask(Channel(task=other), asked, None, task).all_right
            # The same holds if the names do not distinguish them.
            assert ask(Channel(task=other, verb="add"), asked, None, task).wrong_count > 0


def test_a_negative_difference_is_reported_with_its_sign(write):
    def flip(signature, outputs):
        outputs["sum"] = tensors.bits_tensor([0b110001], 6)

    file = write("data", [example_of(13, 29, 5)])
    report = ask(Channel(flip, SUBTRACTION), questions.spread([file], 1), ["subtract_bits"], SUBTRACTION)
    wrong = {
        "a": "13",
        "b": "29",
        "got": "-15",
        "expected": "-16",
        "signature": "subtract_bits",
        "bits": 5,
        "outputs": 6,
    }
    assert report.wrong == [wrong | FIRST_BIT]
    assert "first wrong: 13 - 29 = -15 by subtract_bits, not -16 (output 0 is wrong)" in report.line("memory")


def test_an_output_before_the_verdict_is_checked_too(write):
    def flip(signature, outputs):
        # Up to each place: 1 > 1, 1 > 1, 5 > 5, 13 > 13, 13 > 29, all false.
        outputs["sum"] = tensors.bits_tensor([0b000100], 6)

    file = write("data", [example_of(13, 29, 5)])
    [wrong] = ask(Channel(flip, COMPARISON), questions.spread([file], 1), ["compare_bits"], COMPARISON).wrong
    assert (wrong["got"], wrong["expected"], wrong["place"]) == ("False", "False", 2)


@pytest.mark.parametrize("task", TASKS.values())
def test_zeros_follow_a_shorter_answer_of_serving_default(write, task):
    # The outputs of 0 - 1 and of 1 > 0 would continue with ones.
    file = write("data", [example_of(0, 1, 1), example_of(1, 0, 1), example_of(5, 5, 8)])
    asked = questions.spread([file], 3)
    assert ask(Channel(task=task), asked, ["serving_default"], task).all_right

    def spoil(signature, outputs):
        rows = tensors.integers(tensors.decode(outputs["sum"]))
        outputs["sum"] = tensors.bits_tensor([row | (4 if index == short else 0) for index, row in enumerate(rows)], 9)

    short = min(index for index, question in enumerate(asked) if question.length == 1)
    assert ask(Channel(spoil, task), asked, ["serving_default"], task).wrong_count == 1


def test_step_takes_more_than_one_chunk(asked):
    channel = Channel()
    ask(channel, asked[:1], ["step"])
    assert len(channel.requests) == 3


def test_a_flipped_bit_is_reported_with_its_numbers(write):
    def flip(signature, outputs):
        if signature == "add_bits":
            outputs["sum"] = tensors.bits_tensor([43, 300], 9)

    report = ask(Channel(flip), questions.spread([write("data", [example_of(13, 29, 8), example_of(200, 100, 8)])], 10))
    assert (report.asked, report.right, report.wrong_count) == (6, 5, 1)
    wrong = {"a": "13", "b": "29", "got": "43", "expected": "42", "signature": "add_bits", "bits": 8, "outputs": 9}
    assert report.wrong == [wrong | FIRST_BIT]
    assert not report.all_right and "13 + 29 = 43" in report.line("memory")


def flipping(place):
    """Flips the output at `place`, counted over all calls."""
    start = 0

    def flip(signature, outputs):
        nonlocal start
        decoded = tensors.decode(outputs["sum"])
        packed = signature == "add_packed"
        number = int.from_bytes(decoded.values[0], "little") if packed else tensors.integers(decoded)[0]
        size = 8 * len(decoded.values[0]) if packed else decoded.shape[1]
        if start <= place < start + size:
            number ^= 1 << (place - start)
        start += size
        outputs["sum"] = (
            tensors.string_tensor([number.to_bytes(size // 8, "little")])
            if packed
            else tensors.bits_tensor([number], size)
        )

    return flip


@pytest.mark.parametrize(
    ("signature", "outputs"),
    [("serving_default", 13), ("add_bits", 13), ("step", 13), ("add_packed", 16)],
    ids=lambda value: str(value),
)
def test_every_output_is_checked(signature, outputs):
    question = questions.Question(0b100110101011, 0b011011100101, 12)
    for place in range(outputs):
        report = ask(Channel(flipping(place)), [question], [signature])
        assert (report.wrong_count, report.wrong[0]["places"], report.wrong[0]["outputs"]) == (1, [place], outputs)
    assert ask(Channel(flipping(outputs)), [question], [signature]).all_right


@pytest.mark.parametrize("signature", ["step", "add_packed"])
@pytest.mark.parametrize("place", [0, 4095, 4096, 15_000, 20_000])
def test_every_output_of_a_stream_is_checked(signature, place):
    question = questions.Question(2**20_000 - 1, 1, 20_000, streamed=True)
    channel = Channel(flipping(place))
    [wrong] = ask(channel, [question], [signature]).wrong
    assert wrong["places"] == [place] and len(channel.predictions) > 1
    assert int(wrong["a"], 0) + int(wrong["b"], 0) == int(wrong["expected"], 0) == int(wrong["got"], 0) ^ 1 << place


@pytest.mark.parametrize(
    ("signature", "length"), [("step", 4), ("add_packed", 8), ("step", 20_000), ("add_packed", 20_000)]
)
def test_a_lost_state_is_detected(signature, length):
    def forget(_, outputs):
        outputs["state"] = tensors.filled_tensor(0.0, (1, UNITS))

    question = questions.Question(2**length - 1, 1, length)
    assert ask(Channel(), [question], [signature]).all_right
    assert ask(Channel(forget), [question], [signature]).wrong_count == 1


def test_only_the_first_ten_wrong_answers_are_listed_and_long_numbers_in_hexadecimal(write):
    def zero(signature, outputs):
        outputs["sum"] = tensors.bits_tensor(
            [0] * outputs["sum"].tensor_shape.dim[0].size, outputs["sum"].tensor_shape.dim[1].size
        )

    report = ask(Channel(zero), questions.spread([write("data", [example_of(2**99, 1, 100)] * 20)], 20), ["add_bits"])
    assert report.wrong_count == 20 and len(report.wrong) == 10
    assert int(report.wrong[0]["expected"], 0) == 2**99 + 1 and report.wrong[0]["got"] == "0"


@pytest.mark.parametrize("signature", _ALL)
@pytest.mark.parametrize(
    "damage",
    [
        lambda rows, length: tensors.float_tensor([float("nan")] * rows * length, (rows, length)),
        lambda rows, length: tensors.bits_tensor([0] * rows, length + 1),
        lambda rows, length: tensors.string_tensor([b"0"] * rows),
    ],
)
def test_an_answer_of_another_form_is_a_wrong_answer(asked, signature, damage):
    def spoil(_, outputs):
        outputs["sum"] = damage(*(dim.size for dim in outputs["sum"].tensor_shape.dim))

    report = ask(Channel(spoil), asked, [signature])
    assert report.asked == report.wrong_count == 20 and not report.errors
    assert isinstance(report.wrong[0]["got"], str)


def test_wrong_lengths_of_serving_default_are_wrong_answers(asked):
    def spoil(_, outputs):
        outputs["length"].int64_val[0] += 1

    assert ask(Channel(spoil), asked, ["serving_default"]).wrong_count == 20


def test_errors_are_counted_by_code_and_the_counts_add_up(asked):
    def refuse(signature, outputs):
        if signature == "step":
            raise Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "too slow")

    report = ask(Channel(refuse), asked)
    assert report.errors == {"DEADLINE_EXCEEDED": 20} and report.right == 40 and not report.all_right
    assert report.asked == report.right + report.wrong_count + sum(report.errors.values())


def test_the_prober_gives_up_on_a_server_that_only_fails(asked):
    def refuse(signature, outputs):
        raise Failure(grpc.StatusCode.UNAVAILABLE, "gone")

    channel = Channel(refuse)
    report = ask(channel, asked)
    assert report.gave_up and not report.all_right
    assert len([request for request in channel.requests if hasattr(request, "inputs")]) == 5


def test_questions_are_spread_over_and_within_files(write):
    files = [
        write("first", [example_of(n, 0, 10) for n in range(1000)]),
        write("second", [example_of(n, 1, 10) for n in range(3)]),
    ]
    taken = questions.spread(files, 103)
    assert len(taken) == 103
    assert sorted(question.a for question in taken if question.b) == [0, 1, 2]
    first = sorted(question.a for question in taken if not question.b)
    assert len(set(first)) == 100 and first[0] < 100 and first[-1] > 900
    assert taken == questions.spread(files, 103)
    assert len(questions.spread(files, 10**6)) == 1003


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"\xff\xff\xff", "is not an example"),
        (example(a=[1]), "feature b is missing"),
        (example(a=[1], b=[1, 0]), "1 and 2 bits"),
        (example(a=[], b=[]), "0 and 0 bits"),
        (example(a=[2], b=[1]), "bit 0 is 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "record",
)
def test_a_malformed_record_is_named(write, record, words):
    with pytest.raises(tfrecords.CorruptRecords, match=f"data, record 1, .*{words}"):
        questions.spread([write("data", [example_of(1, 1, 1), record])], 5)


def test_a_version_that_refuses_every_question_is_named_and_an_unknown_one_is_not_none(asked):
    def refuse(signature, outputs):
        raise Failure(grpc.StatusCode.INTERNAL, "broken")

    channel = Channel(spoil=refuse)
    channel.version = 7
    report = ask(channel, asked, wanted=None)
    assert (report.right, report.version) == (0, 7) and report.line("memory").startswith("memory version 7: 0 of ")

    def dead(method, request, timeout=None):
        raise Failure(grpc.StatusCode.UNAVAILABLE, "nobody")

    channel.answer = dead
    report = ask(channel, asked, wanted=None)
    assert report.version is None and report.line("memory").startswith("memory version unknown: 0 of ")
