"""Keeps a sample of the requests served, as files of TFRecords of PredictionLog.

The open-source TensorFlow Serving has the hook for such a log and no collector behind it: the LoggingConfig of a model
does nothing there. Here the files lie in FOLDER/MODEL/requests-00000001.tfrecords and so on. A file holds requests of
one model that were answered, at most as many as a warmup may have, so each is a warmup file as it is: copy it to
assets.extra/tf_serving_warmup_requests of a version.

    log = RequestLog(folder, rate=0.01)
    log.offer(request, response)
    log.close()
    for request in read(folder): ...
"""

import collections
import dataclasses
import functools
import logging
import pathlib
import queue
import random
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from components.errors import BitsumError, ConfigError
from components.formats import protos, strict_protos, tfrecords
from serving.server.metrics import Family
from serving.server.request_log_files import PATTERN, LogFile, folder_name, prepare

if TYPE_CHECKING:
    from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

LOGGER = logging.getLogger("bitsum.serving")


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a file is full, how many stay, and what may wait for the disk.

    file_records: TensorFlow Serving refuses a warmup file of more than 1000.
    file_bytes: a file is closed with the record that reaches them. file_seconds: age at which a file is closed.
    files: how many a model keeps; the oldest go. record_bytes: a larger request and response are not logged.
    waiting_records, waiting_bytes: what waits for the disk; more is dropped.
    """

    file_records: int = 1000
    file_bytes: int = 64 * 2**20
    file_seconds: float = 300.0
    files: int = 16
    record_bytes: int = 2**20
    waiting_records: int = 1000
    waiting_bytes: int = 32 * 2**20


class RequestLog:
    """Samples requests at `rate` (0 to 1) with the random numbers of `seed`, and writes them from a thread of its own.

    A full disk ends the log with one line, never the serving. Other servers may write into the same folder.

    Raises:
        ConfigError: an impossible rate.
        BitsumError: the folder cannot be made or written to.
    """

    def __init__(self, folder: pathlib.Path, rate: float, seed: int = 0, limits: Limits = Limits()):
        if not 0.0 <= rate <= 1.0:
            raise ConfigError(f"--request_log_rate {rate} is no share of the requests: give a number from 0 to 1")
        self._folder, self._rate, self._limits = folder, rate, limits
        self._asked_rate = rate
        self._drawn = random.Random(seed).random
        self._queue: queue.SimpleQueue[_Item | threading.Event] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._broken = False
        self._lock = threading.Lock()
        self._waiting_records = self._waiting_bytes = 0
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._files: dict[str, LogFile] = {}
        prepare(folder)
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def offer(self, request: "PredictRequest | bytes", response: "PredictResponse | bytes | None" = None) -> None:
        """Log an answered request, or not. Returns at once: what the disk is too slow for is dropped.

        Both are messages that nobody changes any more, or their bytes.
        """
        if self._drawn() >= self._rate:
            return
        size = _size(request) + _size(response)
        with self._lock:
            if size > self._limits.record_bytes:
                self._counts["", "too_large"] += 1
                return
            if (
                self._waiting_records >= self._limits.waiting_records
                or self._waiting_bytes + size > self._limits.waiting_bytes
            ):
                self._counts["", "dropped"] += 1
                return
            self._waiting_records += 1
            self._waiting_bytes += size
        self._queue.put(_Item(request, response, size, int(time.time())))

    def flush(self, timeout: float = 60.0) -> bool:
        """Make whole files of what was offered up to now; whether that was done within `timeout` seconds."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout)

    def close(self, timeout: float = 60.0) -> None:
        """Make whole files of what was offered, and log no more."""
        self._rate = 0.0
        self._queue.put(self._closed)
        self._thread.join(timeout)

    def counts(self) -> dict[str, int]:
        """How many requests were logged (their file is whole), dropped (the disk was full or too slow), too_large,
        unreadable."""
        counts = dict.fromkeys(("logged", "dropped", "too_large", "unreadable"), 0)
        with self._lock:
            for (_, what), count in self._counts.items():
                counts[what] += count
        return counts

    def families(self) -> list[Family]:
        """For Metrics.sources: TensorFlow Serving's request_log_count, and what was not logged and why."""
        with self._lock:
            logged = sorted((model, count) for (model, what), count in self._counts.items() if what == "logged")
            lost = sorted((what, count) for (_, what), count in self._counts.items() if what != "logged")
        return [
            Family(
                ":tensorflow:serving:request_log_count",
                "counter",
                tuple(({"model_name": model, "status_code": "OK"}, count) for model, count in logged),
            ),
            Family(
                ":bitsum:serving:request_log_lost_count",
                "counter",
                tuple(({"reason": what}, count) for what, count in lost),
            ),
        ]

    def _run(self) -> None:
        while True:
            item = self._next()
            if isinstance(item, _Item):
                self._guarded(functools.partial(self._write, item))
            elif item is not None:
                self._guarded(self._finish_all)
                item.set()
                if item is self._closed:
                    return
            self._guarded(self._finish_due)

    def _next(self) -> "_Item | threading.Event | None":
        """What was offered, or the wish for whole files; None when a file has its age first."""
        opened = [file.opened for file in self._files.values()]
        try:
            return self._queue.get(
                timeout=max(0.0, min(opened) + self._limits.file_seconds - time.monotonic()) if opened else None
            )
        except queue.Empty:
            return None

    def _guarded(self, step: Callable[[], None]) -> None:
        """An error of the disk ends the log and nothing else."""
        try:
            step()
        except OSError as error:
            self._rate, self._broken = 0.0, True
            for file in self._files.values():
                file.discard()
                self._count("", "dropped", file.records)
            self._files.clear()
            LOGGER.warning(
                "request log %s: %s; no more requests are logged, serving goes on",
                self._folder,
                error.strerror or error,
            )

    def _write(self, item: "_Item") -> None:
        with self._lock:
            self._waiting_records -= 1
            self._waiting_bytes -= item.size
        if self._broken:
            self._count("", "dropped")
            return
        try:
            log = self._prediction_log(item)
        except DecodeError:
            self._count("", "unreadable")
            return
        model = log.log_metadata.model_spec.name
        record, file = log.SerializeToString(), self._files.get(model)
        try:
            if file is None:
                file = self._files[model] = LogFile(self._folder / folder_name(model))
            file.add(record)
        except OSError:
            self._count("", "dropped")
            raise
        if file.records >= self._limits.file_records or file.size >= self._limits.file_bytes:
            self._finish(model)

    def _prediction_log(self, item: "_Item") -> Any:
        log = _protos().log.PredictionLog()
        _merge(log.predict_log.request, item.request)
        if item.response is not None:
            _merge(log.predict_log.response, item.response)
        answered = log.predict_log.response.model_spec
        log.log_metadata.model_spec.CopyFrom(answered if answered.name else log.predict_log.request.model_spec)
        log.log_metadata.sampling_config.sampling_rate = self._asked_rate
        log.log_metadata.timestamp_secs = item.seconds
        return log

    def _count(self, model: str, what: str, count: int = 1) -> None:
        with self._lock:
            self._counts[model, what] += count

    def _finish_due(self) -> None:
        due = time.monotonic() - self._limits.file_seconds
        for model in [model for model, file in self._files.items() if file.opened <= due]:
            self._finish(model)

    def _finish_all(self) -> None:
        for model in list(self._files):
            self._finish(model)

    def _finish(self, model: str) -> None:
        file = self._files[model]
        file.finish()
        del self._files[model]
        self._count(model, "logged", file.records)
        whole = sorted(file.folder.glob(PATTERN))
        for path in whole[: max(0, len(whole) - self._limits.files)]:
            path.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class _Item:
    request: Any
    response: Any
    size: int
    seconds: int


def read(folder: pathlib.Path, problem: Callable[[str], None] = LOGGER.warning) -> "Iterator[PredictRequest]":
    """The requests in the whole files of a log's folder, or of one model's in it, or in one file; a model's oldest
    first.

    `problem` is told in a line of every file that is damaged; its records up to there are given.

    Raises:
        BitsumError: there is no such folder or file.
    """
    if not folder.exists():
        raise BitsumError(f"no request log at {folder}: give the folder of --request_log_dir, or one of its files")
    for path in [folder] if folder.is_file() else sorted(folder.rglob(PATTERN)):
        try:
            for log in tfrecords.messages(_protos().log.PredictionLog, path):
                if log.HasField("predict_log"):
                    yield log.predict_log.request
        except tfrecords.CorruptRecords as error:
            problem(str(error))


@functools.cache
def _protos() -> types.SimpleNamespace:
    return protos.load(log="tensorflow_serving.apis.prediction_log_pb2")


def _merge(message: Any, given: Any) -> None:
    message.CopyFrom(strict_protos.parse(type(message), given) if isinstance(given, bytes) else given)


def _size(given: Any) -> int:
    if given is None:
        return 0
    return len(given) if isinstance(given, bytes) else given.ByteSize()
