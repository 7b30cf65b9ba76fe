"""Keeps a sample of the requests served, as files of TFRecords of PredictionLog.

The open-source TensorFlow Serving has the hook for such a log and no collector behind it: the LoggingConfig of a model
does nothing there. Here the files lie in FOLDER/MODEL/requests-TIME-PROCESS.tfrecords, with the time in nanoseconds, so
that names sort by age and several servers may write into one folder. A file holds requests of one model that were
answered, at most as many as a warmup may have, so each is a warmup file as it is: copy it to
assets.extra/tf_serving_warmup_requests of a version.

    log = RequestLog(folder, rate=0.01)
    log.offer(request, response)
    log.close()
    for request in read(folder): ...
"""

import collections
import dataclasses
import logging
import math
import os
import pathlib
import queue
import random
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from components import atomic
from components.errors import BitsumError, ConfigError, reason
from components.formats import request_logs, strict_protos, tfrecords
from serving.server.metrics import Family

if TYPE_CHECKING:
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

LOGGER = logging.getLogger("bitsum.serving")


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a file is full, how many stay, and what may wait for the disk.

    Records are gathered in memory until their files are written. file_records: TensorFlow Serving refuses a warmup file
    of more than 1000. file_bytes: the files of all models are written with the record that brings them to so many bytes
    together. file_seconds: age of the oldest record at which they are. files: how many a model keeps; the oldest go.
    record_bytes: a larger request and response are not logged. waiting_records, waiting_bytes: what waits for the
    writer; more is dropped.
    """

    file_records: int = 1000
    file_bytes: int = 16 * 2**20
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
        self._queue: queue.SimpleQueue[tuple[bytes, bytes, int] | None] = queue.SimpleQueue()
        self._broken = False
        self._lock = threading.Lock()
        self._waiting_records = self._waiting_bytes = 0
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._gathered: dict[str, list[bytes]] = {}
        self._gathered_bytes, self._due = 0, math.inf
        _prepare(folder)
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def offer(self, request: bytes, response: bytes) -> None:
        """Log an answered request, or not: a PredictRequest and its PredictResponse, serialized.

        Returns at once: what the disk is too slow for is dropped.
        """
        if self._drawn() >= self._rate:
            return
        size = len(request) + len(response)
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
        self._queue.put((request, response, int(time.time())))

    def close(self, timeout: float = 60.0) -> None:
        """Make whole files of what was offered, and log no more."""
        self._rate = 0.0
        self._queue.put(None)
        self._thread.join(timeout)

    def families(self) -> list[Family]:
        """For Metrics.sources: TensorFlow Serving's request_log_count, requests whose file is whole; and how many were
        dropped (the disk was full or too slow), too_large, unreadable."""
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
            try:
                offered = self._queue.get(timeout=max(0.0, min(self._due - time.monotonic(), threading.TIMEOUT_MAX)))
            except queue.Empty:
                self._write_all()
                continue
            if offered is None:
                self._write_all()
                return
            self._gather(*offered)

    def _gather(self, request: bytes, response: bytes, seconds: int) -> None:
        with self._lock:
            self._waiting_records -= 1
            self._waiting_bytes -= len(request) + len(response)
        if self._broken:
            self._count("", "dropped")
            return
        try:
            log = self._prediction_log(request, response, seconds)
        except DecodeError:
            self._count("", "unreadable")
            return
        records = self._gathered.setdefault(log.log_metadata.model_spec.name, [])
        records.append(tfrecords.framed(log.SerializeToString()))
        self._gathered_bytes += len(records[-1])
        self._due = min(self._due, time.monotonic() + self._limits.file_seconds)
        if (
            len(records) >= self._limits.file_records
            or self._gathered_bytes >= self._limits.file_bytes
            or time.monotonic() >= self._due
        ):
            self._write_all()

    def _prediction_log(self, request: bytes, response: bytes, seconds: int) -> Any:
        log = request_logs.prediction_log()()
        for message, data in ((log.predict_log.request, request), (log.predict_log.response, response)):
            message.CopyFrom(strict_protos.parse(type(message), data))
        answered = log.predict_log.response.model_spec
        log.log_metadata.model_spec.CopyFrom(answered if answered.name else log.predict_log.request.model_spec)
        log.log_metadata.sampling_config.sampling_rate = self._asked_rate
        log.log_metadata.timestamp_secs = seconds
        return log

    def _count(self, model: str, what: str, count: int = 1) -> None:
        with self._lock:
            self._counts[model, what] += count

    def _write_all(self) -> None:
        """Make files of what was gathered. An error of the disk ends the log and nothing else."""
        try:
            for model in list(self._gathered):
                self._write(model)
        except OSError as error:
            self._rate, self._broken = 0.0, True
            for records in self._gathered.values():
                self._count("", "dropped", len(records))
            LOGGER.warning(
                "request log %s: %s; no more requests are logged, serving goes on",
                self._folder,
                error.strerror or error,
            )
        self._gathered.clear()
        self._gathered_bytes, self._due = 0, math.inf

    def _write(self, model: str) -> None:
        folder = self._folder / _folder_name(model)
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / request_logs.PATTERN.replace("*", f"{time.time_ns()}-{os.getpid()}")
        atomic.write(path, b"".join(self._gathered[model]), mode=0o600)
        self._count(model, "logged", len(self._gathered.pop(model)))
        whole = sorted(folder.glob(request_logs.PATTERN))
        for old in whole[: max(0, len(whole) - self._limits.files)]:
            old.unlink(missing_ok=True)


def read(folder: pathlib.Path, problem: Callable[[str], None] = LOGGER.warning) -> "Iterator[PredictRequest]":
    """The requests in the whole files of a log's folder, or of one model's in it, or in one file; a model's oldest
    first.

    A damaged or unreadable file is reported to `problem` in one line; its records before the damage are given.

    Raises:
        BitsumError: there is no such folder or file.
    """
    if not folder.exists():
        raise BitsumError(f"no request log at {folder}: give the folder of --request_log_dir, or one of its files")
    for path in [folder] if folder.is_file() else sorted(folder.rglob(request_logs.PATTERN)):
        try:
            yield from request_logs.requests(path)
        except BitsumError as error:
            problem(str(error))


def _folder_name(model: str) -> str:
    """A model may be called anything; a folder may not."""
    quoted = urllib.parse.quote(model, safe=" ")
    return quoted.replace(".", "%2E") if not quoted.strip(".") else quoted


def _prepare(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One without a name: nothing stays of it.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BitsumError(f"cannot keep a request log in {folder}: {reason(error)}") from error
