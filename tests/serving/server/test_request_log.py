"""serving.server.request_log: the sampled requests, their files, and a full disk."""

import errno
import logging
import os
import threading

import pytest

from components.errors import BitsumError, ConfigError
from components.formats import protos, tfrecords
from serving.server.request_log import Limits, RequestLog, read
from tests.support.shelves import eventually

pytestmark = pytest.mark.fast

_APIS = protos.load(predict="tensorflow_serving.apis.predict_pb2", log="tensorflow_serving.apis.prediction_log_pb2")


def _request(number: int, model: str = "bitsum", size: int = 0):
    """A request with `number` in the name of its signature, to identify it."""
    request = _APIS.predict.PredictRequest()
    request.model_spec.name = model
    request.model_spec.version_label = "stable"
    request.model_spec.signature_name = f"signature {number}"
    if size:
        request.inputs["a"].string_val.append(b"x" * size)
    return request


def _response(model: str = "bitsum", version: int = 7):
    response = _APIS.predict.PredictResponse()
    response.model_spec.name = model
    response.model_spec.version.value = version
    return response


def _offer(log: RequestLog, number: int, model: str = "bitsum", size: int = 0) -> None:
    log.offer(_request(number, model, size).SerializeToString(), _response(model).SerializeToString())


def _counts(log: RequestLog) -> dict[str, int]:
    return {labels.get("reason", "logged"): count for family in log.families() for labels, count in family.samples}


def _numbers(path) -> list[int]:
    return [int(request.model_spec.signature_name.split()[1]) for request in read(path)]


def _names(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _log(folder, count: int, limits: Limits | None = None, **options) -> RequestLog:
    log = RequestLog(folder, options.pop("rate", 1.0), limits=limits or Limits(), **options)
    for number in range(count):
        _offer(log, number)
    return log


def test_a_record_has_request_response_and_metadata(tmp_path):
    _log(tmp_path / "log", 30, rate=0.5, seed=1).close()
    [path] = (tmp_path / "log" / "bitsum").iterdir()
    record = _APIS.log.PredictionLog.FromString(next(iter(tfrecords.read(path))))
    assert record.predict_log.request in [_request(number) for number in range(30)]
    assert record.predict_log.response == _response()
    assert record.log_metadata.model_spec == _response().model_spec
    assert record.log_metadata.sampling_config.sampling_rate == 0.5
    assert abs(record.log_metadata.timestamp_secs - path.stat().st_mtime) < 600


def test_unparsable_requests_are_counted_and_skipped(tmp_path):
    log = RequestLog(tmp_path, 1.0)
    log.offer(b"\xff", b"")
    log.offer(_request(1).SerializeToString(), b"\xff")
    _offer(log, 2)
    log.close()
    assert _counts(log) == {"logged": 1, "unreadable": 2}
    assert _numbers(tmp_path) == [2]


def test_a_file_is_written_when_it_is_full(tmp_path):
    log = _log(tmp_path, 3, Limits(file_records=2))
    eventually(lambda: _counts(log), {"logged": 2})
    [first] = (tmp_path / "bitsum").iterdir()
    assert _numbers(first) == [0, 1]
    log.close()
    assert _counts(log) == {"logged": 3} and _numbers(tmp_path) == [0, 1, 2]
    assert len(_names(tmp_path)) == 2


def test_a_file_is_also_limited_in_bytes(tmp_path):
    log = RequestLog(tmp_path, 1.0, limits=Limits(file_bytes=2000))
    for number in range(4):
        _offer(log, number, size=1000)
    log.close()
    assert len(_names(tmp_path)) == 2 and _numbers(tmp_path) == [0, 1, 2, 3]


def test_a_file_is_written_at_its_age_limit_without_a_further_request(tmp_path):
    log = _log(tmp_path, 1, Limits(file_seconds=0.05))
    eventually(lambda: _counts(log), {"logged": 1})
    assert _numbers(tmp_path) == [0]
    log.close()


def test_the_oldest_files_are_deleted_including_those_of_earlier_processes(tmp_path):
    for _ in range(2):
        _log(tmp_path, 9, Limits(file_records=2, files=6)).close()
    assert len(_names(tmp_path)) == 6 and _numbers(tmp_path) == [8, *range(9)]


def test_two_servers_may_share_a_folder(tmp_path):
    logs = [_log(tmp_path, 50, Limits(file_records=3, files=100)) for _ in range(2)]
    for log in logs:
        log.close()
    assert sorted(_numbers(tmp_path)) == sorted([*range(50)] * 2)


@pytest.mark.parametrize(
    "model, folder", [("a/b", "a%2Fb"), ("..", "%2E%2E"), ("a b", "a b"), ("ä", "%C3%A4"), ("v1.2", "v1.2")]
)
def test_each_model_has_a_subfolder(model, folder, tmp_path):
    log = RequestLog(tmp_path / "log", 1.0)
    _offer(log, 1, model)
    _offer(log, 2, "other")
    log.close()
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == sorted([folder, "other"])
    assert _numbers(tmp_path / "log" / folder) == [1]


def test_only_the_owner_can_read_the_files(tmp_path):
    _log(tmp_path / "log", 1).close()
    assert [path.stat().st_mode & 0o077 for path in (tmp_path / "log").rglob("*")] == [0, 0]


def test_the_seed_determines_the_sample_and_the_rate_its_size(tmp_path):
    samples = []
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        _log(tmp_path / name, 2000, Limits(waiting_records=2000), rate=0.1, seed=seed).close()
        samples.append(_numbers(tmp_path / name))
    assert samples[0] == samples[1] != samples[2]
    # Four standard deviations of a binomial distribution: sqrt(2000 * 0.1 * 0.9) = 13.4.
    assert all(abs(len(sample) - 200) < 54 for sample in samples)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_out_of_range_is_refused(rate, tmp_path):
    with pytest.raises(ConfigError, match=f"--request_log_rate {rate} is out of range"):
        RequestLog(tmp_path, rate)


def test_a_rate_of_zero_logs_nothing(tmp_path):
    _log(tmp_path, 100, rate=0.0).close()
    assert _names(tmp_path) == []


def test_large_requests_and_those_beyond_the_queue_are_dropped_and_counted(tmp_path, monkeypatch):
    going_on, writing = threading.Event(), threading.Event()

    def slow(descriptor):
        writing.set()
        going_on.wait(10)

    monkeypatch.setattr(os, "fsync", slow)
    limits = Limits(file_records=1, record_bytes=2000, waiting_records=3, waiting_bytes=2500)
    log = _log(tmp_path, 1, limits)
    assert writing.wait(10)
    for number, size in [(1, 3000), (2, 1500), (3, 1500), (4, 0), (5, 0), (6, 0)]:
        _offer(log, number, size=size)
    going_on.set()
    log.close()
    assert _counts(log) == {"logged": 4, "dropped": 2, "too_large": 1}
    assert _numbers(tmp_path) == [0, 2, 4, 5]


def test_a_full_disk_ends_the_log_with_one_line_and_no_partial_files(tmp_path, monkeypatch, caplog):
    log = _log(tmp_path, 2, Limits(file_records=2))
    eventually(lambda: _counts(log), {"logged": 2})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        _offer(log, 2, "other")
        for number in range(3, 9):
            _offer(log, number)
        log.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"request log {tmp_path}: No space left on device; logging stops, the server keeps running"
    ]
    assert len(_names(tmp_path)) == 1 and _numbers(tmp_path) == [0, 1]
    counts = _counts(log)
    assert counts["logged"] == 2 and 3 <= counts["dropped"] <= 7


def test_an_unwritable_folder_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BitsumError, match=f"cannot keep a request log in {tmp_path / 'file'}: File exists"):
        RequestLog(tmp_path / "file", 0.1)
    with pytest.raises(BitsumError, match="Not a directory"):
        RequestLog(tmp_path / "file" / "log", 0.1)


def test_the_counts_have_the_names_of_the_real_server(tmp_path):
    log = _log(tmp_path, 2, Limits(record_bytes=200))
    _offer(log, 1, size=500)
    log.close()
    logged, lost = log.families()
    assert (logged.name, logged.samples) == (
        ":tensorflow:serving:request_log_count",
        (({"model_name": "bitsum", "status_code": "OK"}, 2),),
    )
    assert lost.samples == (({"reason": "too_large"}, 1),)


def test_damaged_files_are_reported_and_the_others_read(tmp_path):
    _log(tmp_path, 6, Limits(file_records=2)).close()
    first, second, _ = sorted((tmp_path / "bitsum").iterdir())
    os.truncate(first, first.stat().st_size - 3)
    second.write_bytes(tfrecords.framed(b"\xff\xff"))
    problems = []
    numbers = [int(request.model_spec.signature_name.split()[1]) for request in read(tmp_path, problems.append)]
    assert numbers == [0, 4, 5]
    assert [problem.split(":")[0] for problem in problems] == [
        f"{first} is damaged at record 1",
        f"{second}, record 0, is not a PredictionLog",
    ]


def test_a_single_file_is_readable_and_a_missing_one_is_reported(tmp_path):
    _log(tmp_path, 2, Limits(file_records=1)).close()
    assert _numbers(max((tmp_path / "bitsum").iterdir())) == [1]
    with pytest.raises(BitsumError, match=f"no request log at {tmp_path / 'absent'}"):
        list(read(tmp_path / "absent"))
