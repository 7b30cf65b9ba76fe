"""Logs a sample of the served requests to TFRecord files of PredictionLog.

The open-source TensorFlow Serving has a hook for such a log but no collector, so that the LoggingConfig of a model has
no effect there. Files are FOLDER/MODEL/requests-TIME-PROCESS.tfrecords, with the time in nanoseconds: names sort by
age, and several servers may share a folder. A file holds answered requests of one model; `bitsum warmup` adds them to
the warmup requests of a new version.

    log = RequestLog(folder, rate=0.01)
    log.offer(request, response)
    log.close()
    for request in read(folder): ...
"""

import collections
import dataclasses
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
from serving.exposition import Family
from serving.versions.loader import LOGGER

if TYPE_CHECKING:
    from tensorflow_serving.apis.predict_pb2 import PredictRequest


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of files and of memory. Records stay in memory until their files are written.

    file_records: records of a file.
    file_bytes: bytes of all records in memory at which the files of all models are written.
    file_seconds: age of the oldest record at which they are written.
    files: files per model; the oldest are deleted.
    record_bytes: larger pairs of request and response are not logged.
    waiting_records, waiting_bytes: the queue of the writer; more is dropped.
    """

    file_records: int = 1000
    file_bytes: int = 16 * 2**20
    file_seconds: float = 300.0
    files: int = 16
    record_bytes: int = 2**20
    waiting_records: int = 1000
    waiting_bytes: int = 32 * 2**20


class RequestLog:
    """Samples requests at `rate` (0 to 1) with random numbers from `seed`, and writes them in its own thread.

    A full disk ends the log with one line; the server keeps running. Several servers may share the folder.

    Raises:
        ConfigError: a rate out of range.
        BitsumError: the folder is not writable.
    """

    def __init__(self, folder: pathlib.Path, rate: float, seed: int = 0, limits: Limits = Limits()):
        if not 0.0 <= rate <= 1.0:
            raise ConfigError(f"--request_log_rate {rate} is out of range: give a fraction of the requests from 0 to 1")
        self._folder, self._rate, self._limits = folder, rate, limits
        self._logged_rate = rate
        self._random = random.Random(seed).random
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
        """Sample an answered request: a serialized PredictRequest and its PredictResponse.

        Returns at once; drops what exceeds the queue of a slow disk.
        """
        if self._random() >= self._rate:
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
        """Write everything offered so far to files and stop."""
        self._rate = 0.0
        self._queue.put(None)
        self._thread.join(timeout)

    def families(self) -> list[Family]:
        """For Metrics.sources: TensorFlow Serving's request_log_count, the requests in complete files, and counts of
        requests that are dropped (the disk is full or too slow), too_large or unreadable."""
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
        log.log_metadata.sampling_config.sampling_rate = self._logged_rate
        log.log_metadata.timestamp_secs = seconds
        return log

    def _count(self, model: str, what: str, count: int = 1) -> None:
        with self._lock:
            self._counts[model, what] += count

    def _write_all(self) -> None:
        """Write the gathered records to files. An error of the disk ends only the log."""
        try:
            for model in list(self._gathered):
                self._write(model)
        except OSError as error:
            self._rate, self._broken = 0.0, True
            for records in self._gathered.values():
                self._count("", "dropped", len(records))
            LOGGER.warning(
                "request log %s: %s; logging stops, the server keeps running", self._folder, error.strerror or error
            )
        self._gathered.clear()
        self._gathered_bytes, self._due = 0, math.inf

    def _write(self, model: str) -> None:
        folder = self._folder / _folder_name(model)
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / request_logs.PATTERN.replace("*", f"{time.time_ns()}-{os.getpid()}")
        atomic.write(path, b"".join(self._gathered[model]), mode=0o600)
        self._count(model, "logged", len(self._gathered.pop(model)))
        whole = atomic.matching(folder, request_logs.PATTERN)
        for old in whole[: max(0, len(whole) - self._limits.files)]:
            old.unlink(missing_ok=True)


def read(folder: pathlib.Path, problem: Callable[[str], None] = LOGGER.warning) -> "Iterator[PredictRequest]":
    """The requests in a log's folder, in the folder of one of its models, or in one file; for each model, oldest first.

    A damaged or unreadable file is reported to `problem` in one line; its records before the damage are given.

    Raises:
        BitsumError: no such folder or file, or a folder that cannot be read.
    """
    if not folder.exists():
        raise BitsumError(f"no request log at {folder}: give the folder of --request_log_dir or one of its files")
    for path in [folder] if folder.is_file() else request_logs.files(folder):
        try:
            yield from request_logs.requests(path)
        except BitsumError as error:
            problem(str(error))


def _folder_name(model: str) -> str:
    """The model's name with the characters escaped that a folder name must not have."""
    quoted = urllib.parse.quote(model, safe=" ")
    return quoted.replace(".", "%2E") if not quoted.strip(".") else quoted


def _prepare(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Without a name, so that no file remains.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BitsumError(f"cannot keep a request log in {folder}: {reason(error)}") from error
