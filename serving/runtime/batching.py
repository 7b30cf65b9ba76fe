"""Runs concurrent requests together: what waits for a free thread is put into one run of the graph, and its rows handed
back.

As TensorFlow Serving's batching_session.cc: rows are dimension 0 of every input and output, requests of too many rows
and full queues are refused in its words. What differs makes a batch invisible to those in it: only requests whose other
dimensions are equal share a run, so that nothing is ever padded along time (TensorFlow Serving pads with the first
element, which for bits can be a 1 and changes the sum), and where a run fails each request runs again alone, so that
none gets another's error.
"""

import dataclasses
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from serving.runtime.batching_parameters import BatchingParameters
from serving.status import Code, StatusError

if TYPE_CHECKING:
    from serving.runtime.loaded_model import LoadedModel

Feeds = Mapping[str, np.ndarray]


@dataclasses.dataclass(eq=False)
class _Task:
    """One request; `end` on the monotonic clock is when nobody waits for it any more."""

    feeds: Feeds
    rows: int
    end: float | None
    outputs: list[np.ndarray] | None = None
    error: Exception | None = None


class _Batch:
    """Requests that run together; whoever opened it runs it."""

    def __init__(self, task: _Task):
        self.tasks = [task]
        self.rows = task.rows
        self.opened = time.monotonic()
        self.full = threading.Event()
        self.done = threading.Event()

    def add(self, task: _Task) -> None:
        self.tasks.append(task)
        self.rows += task.rows


class BatchedModel:
    """A loaded model whose runs are batched; it is used as the LoadedModel that it wraps is.

    Args:
        model: what runs.
        parameters: sizes, timeout and threads.
    """

    def __init__(self, model: "LoadedModel", parameters: BatchingParameters):
        self._model = model
        self._parameters = parameters
        self._threads = threading.Semaphore(parameters.num_batch_threads)
        self._lock = threading.Lock()
        self._open: dict[Hashable, _Batch] = {}
        self._admitted = 0
        self.signatures = model.signatures
        self.path = model.path

    def run(self, feeds: Feeds, fetches: Sequence[str], timeout: float | None = None) -> list[np.ndarray]:
        """As LoadedModel.run, for tensors that all have rows.

        Raises:
            StatusError: no rows, different numbers of them, too many, a full queue, or what the run itself raises.
        """
        rows = _rows(feeds)
        end = None if timeout is None else time.monotonic() + timeout
        if rows > self._parameters.max_batch_size:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"Task size {rows} is larger than maximum input batch size {self._parameters.max_batch_size}",
            )
        return self._run_batched(_Task(feeds, rows, end), fetches)

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _run_batched(self, task: _Task, fetches: Sequence[str]) -> list[np.ndarray]:
        key = (
            tuple(fetches),
            *((name, value.dtype.str, value.shape[1:], _width(value)) for name, value in task.feeds.items()),
        )
        with self._lock:
            batch = self._open.get(key)
            leads = batch is None or batch.rows + task.rows > self._parameters.max_batch_size
            if leads:
                batch = self._opened(key, task)
            else:
                batch.add(task)
                if batch.rows == self._parameters.max_batch_size:
                    batch.full.set()
        if leads:
            self._lead(key, batch, fetches)
        else:
            batch.done.wait()
        if task.error:
            raise task.error
        return task.outputs

    def _opened(self, key: Hashable, task: _Task) -> _Batch:
        limit = self._parameters.max_enqueued_batches
        enqueued = self._admitted - self._parameters.num_batch_threads
        if enqueued >= limit:
            raise StatusError(
                Code.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{enqueued} batches enqueued and max_enqueued_batches is {limit}",
            )
        self._admitted += 1
        batch = self._open[key] = _Batch(task)
        return batch

    def _lead(self, key: Hashable, batch: _Batch, fetches: Sequence[str]) -> None:
        """Wait for a thread and for the batch to fill up, run it, and wake up the others."""
        try:
            with self._threads:
                patience = batch.opened + self._parameters.batch_timeout_micros / 1e6 - time.monotonic()
                if patience > 0 and batch.rows < self._parameters.max_batch_size:
                    batch.full.wait(patience)
                with self._lock:
                    if self._open.get(key) is batch:
                        del self._open[key]
                self._run(batch.tasks, fetches)
        finally:
            with self._lock:
                self._admitted -= 1
            batch.done.set()

    def _run(self, tasks: list[_Task], fetches: Sequence[str]) -> None:
        """Fill in outputs or error of each task."""
        now = time.monotonic()
        in_time = [task for task in tasks if task.end is None or task.end > now]
        for task in tasks:
            if task not in in_time:
                task.error = StatusError(
                    Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue"
                )
        if not in_time:
            return
        try:
            self._run_together(in_time, fetches, now)
        except Exception as error:
            if len(in_time) == 1:
                in_time[0].error = error
                return
            for task in in_time:
                self._run([task], fetches)

    def _run_together(self, tasks: list[_Task], fetches: Sequence[str], now: float) -> None:
        ends = [task.end for task in tasks]
        timeout = None if None in ends else max(ends) - now
        rows = sum(task.rows for task in tasks)
        padding = self._parameters.padded_size(rows) - rows
        values = self._model.run(_merged([task.feeds for task in tasks], padding), fetches, timeout)
        _check_outputs(values, rows + padding)
        start = 0
        for task in tasks:
            task.outputs = [value[start : start + task.rows] for value in values]
            start += task.rows


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
    """The length of the first string: strings of different lengths are as unlike as tensors of different shapes."""
    return len(value.flat[0]) if value.dtype == object and value.size else 0


def _merged(feeds: list[Feeds], padding: int) -> Feeds:
    """The rows of all, and the last one's first row `padding` times more: a row that is known to be valid."""
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
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
            )
