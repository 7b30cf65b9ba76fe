"""Batches of concurrent requests: what runs together, what each gets back, and what is refused, with TensorFlow
Serving's texts."""

import threading
import time
from concurrent import futures

import numpy as np
import pytest

from serving.runtime import batching
from serving.runtime.batching import BatchedModel
from serving.runtime.batching_parameters import BatchingParameters
from serving.status import Code, StatusError

pytestmark = pytest.mark.fast


class Doubling:
    """Doubles x; a run waits until it is let go. A negative element fails the run that it is in."""

    signatures = {}
    path = None

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


@pytest.fixture(autouse=True)
def arrived(monkeypatch):
    """A list that grows with every request which has found its batch."""
    tasks = []

    class Batch(batching._Batch):
        def __init__(self, task):
            super().__init__(task)
            tasks.append(task)

        def add(self, task):
            super().add(task)
            tasks.append(task)

    monkeypatch.setattr(batching, "_Batch", Batch)
    return tasks


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def column(*values):
    return np.array([[value] for value in values])


def batched(**parameters):
    model = Doubling()
    return model, BatchedModel(model, BatchingParameters(**{"num_batch_threads": 1, **parameters}))


def ask_behind_a_run(model, subject, arrived, inputs):
    """The results (or errors) of `inputs`, all of which came while another run kept the only thread; that run's input
    is 7."""
    with futures.ThreadPoolExecutor(len(inputs) + 1) as pool:
        first = pool.submit(subject.run, {"x": column(7)}, ["y:0"])
        assert model.begun.acquire(timeout=10)
        waiting = []
        for value in inputs:
            waiting.append(pool.submit(subject.run, {"x": value}, ["y:0"]))
            wait_until(lambda: len(arrived) == 1 + len(waiting) or waiting[-1].done())
        model.let_go.set()
        assert first.result(10)[0].tolist() == [[14]]
        return [future.exception(10) or future.result()[0].tolist() for future in waiting]


def test_a_request_alone_runs_as_it_is():
    model, subject = batched()
    model.let_go.set()

    assert [value.tolist() for value in subject.run({"x": column(1, 2)}, ["y:0", "z:0"])] == [[[2], [4]], [[2], [4]]]
    assert model.runs == [([[1], [2]], None)]


def test_what_waits_for_a_thread_runs_together_and_everyone_gets_its_own_rows(arrived):
    model, subject = batched()

    assert ask_behind_a_run(model, subject, arrived, [column(1), column(2, 3), column(4)]) == [[[2]], [[4], [6]], [[8]]]
    assert [run[0] for run in model.runs] == [[[7]], [[1], [2], [3], [4]]]


def test_requests_of_other_lengths_are_not_padded_but_run_apart(arrived):
    model, subject = batched()
    wide = np.array([[5, 6]])

    assert ask_behind_a_run(model, subject, arrived, [column(1), wide, column(2)]) == [[[2]], [[10, 12]], [[4]]]
    assert sorted(run[0] for run in model.runs) == [[[1], [2]], [[5, 6]], [[7]]]


def test_strings_of_other_lengths_run_apart_too(arrived):
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
        wait_until(lambda: len(arrived) == 4)
        model.let_go.set()
        assert [future.result(10)[0].tolist() for future in (first, *waiting)] == [
            [b"first"],
            [b"ab"],
            [b"abc"],
            [b"cd"],
        ]
    assert sorted(model.runs) == [[b"ab", b"cd"], [b"abc"], [b"first"]]


def test_an_error_of_one_is_not_the_others(arrived):
    model, subject = batched()

    right, wrong, also_right = ask_behind_a_run(model, subject, arrived, [column(1), column(-2), column(3)])

    assert (right, also_right) == ([[2]], [[6]])
    assert str(wrong) == "negative: -2"


def test_a_batch_is_filled_up_to_an_allowed_size_with_a_row_that_is_valid(arrived):
    model, subject = batched(max_batch_size=8, allowed_batch_sizes=(4, 8))

    assert ask_behind_a_run(model, subject, arrived, [column(1, 2), column(5)]) == [[[2], [4]], [[10]]]
    assert [run[0] for run in model.runs] == [[[7], [7], [7], [7]], [[1], [2], [5], [5]]]


def test_a_batch_takes_no_more_than_its_size(arrived):
    model, subject = batched(max_batch_size=3)

    assert ask_behind_a_run(model, subject, arrived, [column(1, 2), column(3, 4), column(5)]) == [
        [[2], [4]],
        [[6], [8]],
        [[10]],
    ]
    assert sorted(len(run[0]) for run in model.runs) == [1, 2, 3]


def test_a_batch_waits_for_others_as_long_as_it_is_told():
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
def test_what_has_no_rows_or_too_many_is_refused(feeds, text):
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
def test_outputs_without_the_rows_are_an_error(output, text):
    class Odd(Doubling):
        def run(self, feeds, fetches, timeout=None):
            return [output]

    with pytest.raises(StatusError, match=text) as caught:
        BatchedModel(Odd(), BatchingParameters()).run({"x": column(1)}, ["y:0"])

    assert caught.value.code == Code.FAILED_PRECONDITION


def test_a_full_queue_refuses(arrived):
    model, subject = batched(max_batch_size=1, max_enqueued_batches=2)

    *answered, refused = ask_behind_a_run(model, subject, arrived, [column(1), column(2), column(3)])

    assert answered == [[[2]], [[4]]]
    assert (refused.code, str(refused).partition(";")[0]) == (
        Code.UNAVAILABLE,
        "The batch scheduling queue to which this task was submitted is full",
    )


def test_who_waited_too_long_is_told_so_and_does_not_run():
    model, subject = batched()
    with futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(subject.run, {"x": column(7)}, ["y:0"])
        assert model.begun.acquire(timeout=10)
        late = pool.submit(subject.run, {"x": column(1)}, ["y:0"], 0.01)
        time.sleep(0.05)
        model.let_go.set()
        first.result(10)
        error = late.exception(10)

    assert (error.code, str(error)) == (
        Code.RESOURCE_EXHAUSTED,
        "Run() timeout exceeded while waiting in batching queue",
    )
    assert [run[0] for run in model.runs] == [[[7]]]


def test_a_run_gets_the_longest_of_the_deadlines(arrived):
    model, subject = batched()
    with futures.ThreadPoolExecutor(3) as pool:
        first = pool.submit(subject.run, {"x": column(7)}, ["y:0"])
        assert model.begun.acquire(timeout=10)
        others = [
            pool.submit(subject.run, {"x": column(value)}, ["y:0"], timeout)
            for value, timeout in ((1, 20.0), (2, 50.0))
        ]
        wait_until(lambda: len(arrived) == 3)
        model.let_go.set()
        for future in (first, *others):
            future.result(10)

    timeouts = [timeout for _, timeout in model.runs]
    assert timeouts[0] is None
    assert 20 < timeouts[1] <= 50
