"""serving.probing.generated: the questions, and their answers against Python's integers."""

import itertools

import pytest

from components.data import tf_examples
from components.formats import tfrecords
from components.task import addition, patterns
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION, TASKS
from serving.probing import questions
from serving.probing.generated import LONG_BITS, MAX_BITS, fresh

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_expected_outputs_are_those_of_integers(task):
    for question in fresh(task, 5, 200):
        count = question.length + 1
        assert max(question.a, question.b).bit_length() <= question.length
        assert task.read(question.outputs(task, count), count) == task.meaning(question.a, question.b)


def test_questions_depend_only_on_the_seed():
    assert (
        list(fresh(ADDITION, 1, 50)) == list(fresh(ADDITION, 1, 50)) == list(itertools.islice(fresh(ADDITION, 1), 50))
    )
    assert list(fresh(ADDITION, 1, 50)) != list(fresh(ADDITION, 2, 50))
    assert list(fresh(ADDITION, 1, 0)) == []


def test_lengths_are_log_uniform():
    lengths = [question.length for question in fresh(ADDITION, 1, 3000) if not question.streamed]
    per_doubling = [sum(length.bit_length() == bits for length in lengths) for bits in range(1, MAX_BITS.bit_length())]
    assert sum(per_doubling) + lengths.count(MAX_BITS) == len(lengths) and max(lengths) > 0.9 * MAX_BITS
    assert min(per_doubling) > 0.7 * len(lengths) / 12 and max(per_doubling) < 1.3 * len(lengths) / 12


def test_the_first_questions_have_every_kind():
    first = list(fresh(ADDITION, 1, 4))
    assert [question.streamed for question in first] == [False, False, False, True] and first[3].length == LONG_BITS
    assert 10 < sum(question.streamed for question in fresh(ADDITION, 1, 1000)) < 40


def test_structured_questions_come_from_the_patterns():
    [question] = fresh(ADDITION, 3, 1)
    assert (question.a, question.b) in {(case.a, case.b) for case in patterns.structured_cases(question.length)}


@pytest.mark.parametrize(
    ("task", "most_that_decide"), [(ADDITION, 3), (SUBTRACTION, 3), (COMPARISON, 3)], ids=lambda value: str(value)
)
def test_a_propagating_word_keeps_the_state_nearly_everywhere(task, most_that_decide):
    question = list(fresh(task, 1, 3))[2]
    symbols = [(question.a >> place & 1, question.b >> place & 1) for place in range(question.length)]
    deciding = [symbol for symbol in symbols if any(task.step(state, symbol)[1] != state for state in task.states)]
    assert len(deciding) <= most_that_decide


def test_a_question_is_serialized_like_the_data(tmp_path):
    question = questions.Question(13, 29, 5)
    bits = {"a": addition.to_bits(13, 5), "b": addition.to_bits(29, 5)}
    assert question.example() == tf_examples.serialize(bits)
    assert questions.Question(13, 29, 5, b"record").example() == b"record"
    tf_examples.write_records(str(tmp_path / "data"), [question.example()])
    assert [*tfrecords.read(str(tmp_path / "data"))] == [question.example()]
