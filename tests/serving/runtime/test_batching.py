"""serving.runtime.batching: which requests run together, their results, and refusals in TensorFlow Serving's words."""

import threading
from concurrent import futures

import numpy as np
import pytest

from serving.runtime.batching import BatchedModel
from serving.runtime.batching_parameters import BatchingParameters
from serving.status import Code, StatusError
from tests.support.waiting import wait_for

pytestmark = pytest.mark.fast


class Doubling:
    """Doubles x; a run waits for `let_go`. A negative element fails its run."""

    signatures = {}

    def __init__(self):
        self.let_go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.runs = []

    def run(self, feeds, fetches, timeout=None):
        self.begun.release()
        assert self.let_go.wait(10)
        self.runs.append((feeds["x"].tolist(), timeout))
        if any(np.ravel(feeds["x"]) < 0):
            raise StatusError(Code.INVALID_ARGUMENT, f"negative: {feeds['x'].min()}")
        return [2 * feeds["x"] for _ in fetches]

    def close(self):
        pass


def column(*values):
    return np.array([[value] for value in values])


def batched(**parameters):
    model = Doubling()
    return model, BatchedModel(model, BatchingParameters(**{"num_batch_threads": 1, **parameters}))


def ask_behind_a_run(model, subject, inputs):
    """The results (or errors) of `inputs`, all sent while a run of 7 occupies the only thread."""
    with futures.ThreadPoolExecutor(len(inputs) + 1) as pool:
        first = pool.submit(subject.run, {"x": column(7)}, ["y:0"])
        assert model.begun.acquire(timeout=10)
        waiting = []
        for value in inputs:
            waiting.append(pool.submit(subject.run, {"x": value}, ["y:0"]))
            wait_for(lambda: subject.waiting == len(waiting) or waiting[-1].done())
        model.let_go.set()
        assert first.result(10)[0].tolist() == [[14]]
        return [future.exception(10) or future.result()[0].tolist() for future in waiting]


def test_a_single_request_runs_unchanged():
    model, subject = batched()
    model.let_go.set()

    assert [value.tolist() for value in subject.run({"x": column(1, 2)}, ["y:0", "z:0"])] == [[[2], [4]], [[2], [4]]]
    assert model.runs == [([[1], [2]], None)]


def test_requests_that_wait_for_a_thread_run_together_and_each_gets_its_own_rows():
    model, subject = batched()

    assert ask_behind_a_run(model, subject, [column(1), column(2, 3), column(4)]) == [[[2]], [[4], [6]], [[8]]]
    assert [run[0] for run in model.runs] == [[[7]], [[1], [2], [3], [4]]]


def test_requests_of_different_lengths_run_separately_without_padding():
    model, subject = batched()
    wide = np.array([[5, 6]])

    assert ask_behind_a_run(model, subject, [column(1), wide, column(2)]) == [[[2]], [[10, 12]], [[4]]]
    assert sorted(run[0] for run in model.runs) == [[[1], [2]], [[5, 6]], [[7]]]


def test_strings_of_different_lengths_run_separately():
    class Echo(Doubling):
        def run(self, feeds, fetches, timeout=None):
            self.begun.release()
            assert self.let_go.wait(10)
            self.runs.append(feeds["x"].tolist())
            return [feeds["x"]]

    model = Echo()
    subject = BatchedModel(model, BatchingParameters(num_batch_threads=1))
    with futures.ThreadPoolExecutor(4) as pool:
        first = pool.submit(subject.run, {"x": np.array([b"first"], object)}, ["y:0"])
        assert model.begun.acquire(timeout=10)
        waiting = [
            pool.submit(subject.run, {"x": np.array([value], object)}, ["y:0"]) for value in (b"ab", b"abc", b"cd")
        ]
        wait_for(lambda: subject.waiting == 3)
        model.let_go.set()
        assert [future.result(10)[0].tolist() for future in (first, *waiting)] == [
            [b"first"],
            [b"ab"],
            [b"abc"],
            [b"cd"],
        ]
    assert sorted(model.runs) == [[b"ab", b"cd"], [b"abc"], [b"first"]]


def test_the_error_of_one_request_does_not_affect_the_others():
    model, subject = batched()

    right, wrong, also_right = ask_behind_a_run(model, subject, [column(1), column(-2), column(3)])

    assert (right, also_right) == ([[2]], [[6]])
    assert str(wrong) == "negative: -2"


def test_a_batch_is_padded_to_an_allowed_size_with_a_valid_row():
    model, subject = batched(max_batch_size=8, allowed_batch_sizes=(4, 8))

    assert ask_behind_a_run(model, subject, [column(1, 2), column(5)]) == [[[2], [4]], [[10]]]
    assert [run[0] for run in model.runs] == [[[7], [7], [7], [7]], [[1], [2], [5], [5]]]


def test_a_batch_does_not_exceed_its_maximum_size():
    model, subject = batched(max_batch_size=3)

    assert ask_behind_a_run(model, subject, [column(1, 2), column(3, 4), column(5)]) == [[[2], [4]], [[6], [8]], [[10]]]
    assert sorted(len(run[0]) for run in model.runs) == [1, 2, 3]


def test_a_batch_waits_for_more_requests_until_its_timeout():
    model, subject = batched(max_batch_size=2, batch_timeout_micros=60_000_000)
    model.let_go.set()
    with futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(subject.run, {"x": column(value)}, ["y:0"]) for value in (1, 2)]
        assert sorted(future.result(10)[0].tolist() for future in both) == [[[2]], [[4]]]
    assert len(model.runs) == 1


@pytest.mark.parametrize(
    "feeds, text",
    [
        ({}, "Batching Run() must have at least one input tensor"),
        ({"x": np.array(1)}, "Batching Run() input tensors must have at least one dimension"),
        ({"x": column(1), "y": column(1, 2)}, "Batching Run() input tensors must have equal 0th-dimension size"),
        ({"x": column(*range(65))}, "Task size 65 is larger than maximum input batch size 64"),
    ],
    ids=["none", "scalar", "unequal", "large"],
)
def test_a_request_without_rows_or_with_too_many_is_refused(feeds, text):
    _, subject = batched(max_batch_size=64)

    with pytest.raises(StatusError, match=text.replace("(", r"\(").replace(")", r"\)")) as caught:
        subject.run(feeds, ["y:0"])

    assert caught.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "output, text",
    [
        (np.array(3), "Batched output tensor has 0 dimensions"),
        (
            column(1, 2, 3),
            "Batched output tensor's 0th dimension does not equal the sum of the 0th "
            "dimension sizes of the input tensors",
        ),
    ],
    ids=["scalar", "rows"],
)
def test_outputs_with_other_rows_than_the_inputs_are_an_error(output, text):
    class Odd(Doubling):
        def run(self, feeds, fetches, timeout=None):
            return [output]

    with pytest.raises(StatusError, match=text) as caught:
        BatchedModel(Odd(), BatchingParameters()).run({"x": column(1)}, ["y:0"])

    assert caught.value.code == Code.FAILED_PRECONDITION


def test_a_full_queue_refuses_requests():
    model, subject = batched(max_batch_size=1, max_enqueued_batches=2)

    *answered, refused = ask_behind_a_run(model, subject, [column(1), column(2), column(3)])

    assert answered == [[[2]], [[4]]]
    assert (refused.code, str(refused).partition(";")[0]) == (
        Code.UNAVAILABLE,
        "The batch scheduling queue to which this task was submitted is full",
    )


def test_a_request_past_its_deadline_fails_without_a_run():
    model, now = Doubling(), [0.0]
    subject = BatchedModel(model, BatchingParameters(num_batch_threads=1), clock=lambda: now[0])
    with futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(subject.run, {"x": column(7)}, ["y:0"])
        assert model.begun.acquire(timeout=10)
        late = pool.submit(subject.run, {"x": column(1)}, ["y:0"], 5.0)
        wait_for(lambda: subject.waiting == 1)
        now[0] = 5.0
        model.let_go.set()
        first.result(10)
        error = late.exception(10)

    assert (error.code, str(error)) == (
        Code.RESOURCE_EXHAUSTED,
        "Run() timeout exceeded while waiting in batching queue",
    )
    assert [run[0] for run in model.runs] == [[[7]]]


def test_a_run_gets_the_latest_deadline_of_its_requests():
    model, now = Doubling(), [0.0]
    subject = BatchedModel(model, BatchingParameters(num_batch_threads=1), clock=lambda: now[0])
    with futures.ThreadPoolExecutor(3) as pool:
        first = pool.submit(subject.run, {"x": column(7)}, ["y:0"])
        assert model.begun.acquire(timeout=10)
        requests = ((1, 20.0), (2, 50.0))
        others = [pool.submit(subject.run, {"x": column(value)}, ["y:0"], timeout) for value, timeout in requests]
        wait_for(lambda: subject.waiting == 2)
        now[0] = 1.0
        model.let_go.set()
        for future in (first, *others):
            future.result(10)

    assert [timeout for _, timeout in model.runs] == [None, 49.0]
