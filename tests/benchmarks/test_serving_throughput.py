"""A failed measurement costs its own cell of the table, no more."""

import contextlib
import types

import pytest

from benchmarks import serving_throughput

pytestmark = pytest.mark.fast

_RUN = {"rate": 50.0, "p50": 1.0, "p99": 2.0}


def test_a_failed_client_process_names_its_error():
    with pytest.raises(serving_throughput._Failed, match=r"^clients 127\.0\.0\.1:1 1 1 8 0\.1: exit 1: "):
        serving_throughput._in_process("clients", "127.0.0.1:1", "1", "1", "8", "0.1")


def test_the_error_of_a_client_thread_is_no_low_rate():
    with pytest.raises(AttributeError):
        serving_throughput.clients(None, 2, 1, 8, 0.1)


def test_the_other_measurements_stay(monkeypatch, capsys):
    def in_process(part: str, target: str, *words: str) -> dict:
        if part == "bare":
            return {"rate": 100.0}
        if target == "embedded, batching" and words[0] == "4":
            raise serving_throughput._Failed("clients: exit 1: out of memory")
        return _RUN

    @contextlib.contextmanager
    def serving(command, name, base_path, log, seconds):
        yield types.SimpleNamespace(target=log.stem)

    monkeypatch.setattr(serving_throughput, "_in_process", in_process)
    monkeypatch.setattr(serving_throughput.model_server, "serving", serving)
    monkeypatch.setattr(serving_throughput.certified_model, "push", lambda *version: version[1:])
    monkeypatch.setenv("PATH", "")
    assert serving_throughput.measure(bits=8, rounds=2, seconds=0.0) == 1
    table = capsys.readouterr().out
    assert table.count("| failed |") == 2 and table.count("| 0.50 |") == 10
    assert "embedded, batching: clients: exit 1: out of memory" in table
