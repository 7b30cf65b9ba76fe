"""Batches concurrent requests: requests that wait for a thread share one run of the graph, and each gets its own rows.

Follows TensorFlow Serving's batching_session.cc: rows are dimension 0 of every input and output; too many rows and a
full queue are refused with its texts. Two differences keep the requests of a batch from affecting one another:

- Only requests whose other dimensions are equal share a run, and nothing is padded along time. TensorFlow Serving pads
  with the first element, which for bits can be a 1 and changes the sum.
- If a run fails, each of its requests runs again alone, so that none gets the error of another.
"""

import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent import futures

import numpy as np

from serving.runtime.batching_parameters import BatchingParameters
from serving.runtime.model import Model
from serving.status import Code, StatusError

Feeds = Mapping[str, np.ndarray]


@dataclasses.dataclass(eq=False)
class _Task:
    """One request; `deadline` is a time of the clock, infinity without a timeout."""

    feeds: Feeds
    rows: int
    deadline: float
    outputs: futures.Future[list[np.ndarray]] = dataclasses.field(default_factory=futures.Future)


class _Batch:
    """Requests that run together; the request that opened the batch runs it."""

    def __init__(self, task: _Task, opened: float):
        self.tasks = [task]
        self.rows = task.rows
        self.opened = opened
        self.full = threading.Event()


class BatchedModel:
    """Takes the place of `model` and batches its runs; `waiting` counts the requests in batches that do not run yet.

    Args:
        parameters: sizes, timeout and threads. clock: the monotonic time in seconds.
    """

    def __init__(self, model: Model, parameters: BatchingParameters, clock: Callable[[], float] = time.monotonic):
        self._model = model
        self._parameters = parameters
        self._clock = clock
        self._threads = threading.Semaphore(parameters.num_batch_threads)
        self._lock = threading.Lock()
        self._open: dict[Hashable, _Batch] = {}
        self._admitted = 0
        self.waiting = 0
        self.signatures = model.signatures

    def run(self, feeds: Feeds, fetches: Sequence[str], timeout: float | None = None) -> list[np.ndarray]:
        """As LoadedModel.run, for tensors that all have rows.

        Raises:
            StatusError: no rows, different numbers of rows, too many rows, a full queue, or an error of the run.
        """
        rows = _rows(feeds)
        if rows > self._parameters.max_batch_size:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"Task size {rows} is larger than maximum input batch size {self._parameters.max_batch_size}",
            )
        task = _Task(feeds, rows, math.inf if timeout is None else self._clock() + timeout)
        key = (
            tuple(fetches),
            *((name, value.dtype.str, value.shape[1:], _width(value)) for name, value in feeds.items()),
        )
        opened = self._join(key, task)
        if opened:
            self._lead(key, opened, fetches)
        return task.outputs.result()

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _join(self, key: Hashable, task: _Task) -> _Batch | None:
        """Add `task` to the open batch of `key`, or open a new batch, which is returned. Raises: StatusError."""
        with self._lock:
            batch = self._open.get(key)
            if batch and batch.rows + task.rows <= self._parameters.max_batch_size:
                batch.tasks.append(task)
                batch.rows += task.rows
                if batch.rows == self._parameters.max_batch_size:
                    batch.full.set()
                self.waiting += 1
                return None
            limit = self._parameters.max_enqueued_batches
            enqueued = self._admitted - self._parameters.num_batch_threads
            if enqueued >= limit:
                raise StatusError(
                    Code.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{enqueued} batches enqueued and max_enqueued_batches is {limit}",
                )
            self._admitted += 1
            self.waiting += 1
            self._open[key] = opened = _Batch(task, self._clock())
            return opened

    def _lead(self, key: Hashable, batch: _Batch, fetches: Sequence[str]) -> None:
        """Wait for a thread and for the batch to fill, then run it."""
        try:
            with self._threads:
                patience = batch.opened + self._parameters.batch_timeout_micros / 1e6 - self._clock()
                if patience > 0 and batch.rows < self._parameters.max_batch_size:
                    batch.full.wait(patience)
                with self._lock:
                    if self._open.get(key) is batch:
                        del self._open[key]
                    self.waiting -= len(batch.tasks)
                self._run(batch.tasks, fetches)
        finally:
            with self._lock:
                self._admitted -= 1

    def _run(self, tasks: list[_Task], fetches: Sequence[str]) -> None:
        """Set the outputs of each task, or its error."""
        now = self._clock()
        in_time = [task for task in tasks if task.deadline > now]
        for task in tasks:
            if task not in in_time:
                late = StatusError(Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")
                task.outputs.set_exception(late)
        if not in_time:
            return
        try:
            outputs = self._run_together(in_time, fetches, max(task.deadline for task in in_time) - now)
        except Exception as error:
            if len(in_time) == 1:
                in_time[0].outputs.set_exception(error)
                return
            for task in in_time:
                self._run([task], fetches)
        else:
            for task, values in zip(in_time, outputs, strict=True):
                task.outputs.set_result(values)

    def _run_together(self, tasks: list[_Task], fetches: Sequence[str], timeout: float) -> list[list[np.ndarray]]:
        """The outputs of each task."""
        rows = sum(task.rows for task in tasks)
        padding = self._parameters.padded_size(rows) - rows
        feeds = _merged([task.feeds for task in tasks], padding)
        values = self._model.run(feeds, fetches, None if math.isinf(timeout) else timeout)
        _check_outputs(values, rows + padding)
        ends = list(itertools.accumulate(task.rows for task in tasks))
        return [[value[end - task.rows : end] for value in values] for task, end in zip(tasks, ends, strict=True)]


def _rows(feeds: Feeds) -> int:
    """The number of rows that all tensors have. Raises: StatusError."""
    if not feeds:
        raise StatusError(Code.INVALID_ARGUMENT, "Batching Run() must have at least one input tensor")
    if not all(value.ndim for value in feeds.values()):
        raise StatusError(Code.INVALID_ARGUMENT, "Batching Run() input tensors must have at least one dimension")
    sizes = {len(value) for value in feeds.values()}
    if len(sizes) > 1:
        raise StatusError(Code.INVALID_ARGUMENT, "Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def _width(value: np.ndarray) -> int:
    """The length of the first string; strings of different lengths differ like tensors of different shapes."""
    return len(value.flat[0]) if value.dtype == object and value.size else 0


def _merged(feeds: list[Feeds], padding: int) -> Feeds:
    """The rows of all, then `padding` copies of a row that is known to be valid: the first row of the last."""
    if len(feeds) == 1 and not padding:
        return feeds[0]
    filler = [{name: value[:1] for name, value in feeds[-1].items()}] * padding
    return {name: np.concatenate([item[name] for item in (*feeds, *filler)]) for name in feeds[0]}


def _check_outputs(values: Sequence[np.ndarray], rows: int) -> None:
    for value in values:
        if np.ndim(value) == 0:
            raise StatusError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(value) != rows:
            raise StatusError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                "input tensors",
            )
