"""Section 6_hot_swap: clients send requests in a closed loop during a change of versions."""

import collections
import pathlib
import shutil
import threading
import time
from collections.abc import Iterator

from tests.conformance import models, recording, replay, servers, wire
from tests.conformance.outcomes import Seen

SECTION = "6_hot_swap"
_CLIENTS = 4
_AFTERWARDS_SECONDS = 1.0
_LABELLED = (
    "model_version_policy {{ specific {{ versions: 1 versions: 2 }} }} version_labels {{ key: 'stable' value: {} }}"
)


class Clients:
    """Clients that request sums during the context: counts of the answers of each version, errors, contradictions."""

    def __init__(self, target: str, request: bytes):
        self.versions: collections.Counter = collections.Counter()
        self.errors: collections.Counter = collections.Counter()
        self.contradictions = 0
        self._target, self._request = target, request
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(_CLIENTS)]

    def _ask(self) -> None:
        with wire.channel(self._target) as stub:
            while not self._stop.is_set():
                answer = wire.call(stub, wire.PREDICT, self._request)
                if answer.code != "OK":
                    self.errors[f"{answer.code}: {answer.message}"] += 1
                    continue
                response = wire.decoded(wire.PREDICT, answer.response)
                version = response.model_spec.version.value
                self.versions[version] += 1
                self.contradictions += set(response.outputs["ver"].int64_val) != {version}

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        servers.until(lambda: self.versions or self.errors, 30)
        return self

    def __exit__(self, *_) -> None:
        time.sleep(_AFTERWARDS_SECONDS)
        self._stop.set()
        for thread in self._threads:
            thread.join()


def run(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """Swaps by rename, by reload and by label, and clients pinned to the old version."""
    base = folder / "m"
    models.put(made, 1, base)
    with servers.running(program, folder, "--model_name=m", f"--model_base_path={base}") as server:
        to = replay.Wire.of(server, folder)
        with Clients(server.target, models.adding()) as clients:
            models.put(made, 2, base)
            replay.settle(to, _states("END", "AVAILABLE"))
        yield _compared("hot_swap_rename", clients)
        _change(to, base, "model_version_policy { specific { versions: 1 } }", "AVAILABLE", "END")
        with Clients(server.target, models.adding()) as clients:
            _change(to, base, "model_version_policy { specific { versions: 2 } }", "END", "AVAILABLE")
        yield _compared("hot_swap_reload", clients)
        _change(to, base, "model_version_policy { specific { versions: 1 versions: 2 } }", "AVAILABLE", "AVAILABLE")
        _change(to, base, _LABELLED.format(1), "AVAILABLE", "AVAILABLE")
        with Clients(server.target, models.adding(label="stable")) as clients:
            _change(to, base, _LABELLED.format(2), "AVAILABLE", "AVAILABLE")
        yield _compared("hot_swap_label", clients)
        with Clients(server.target, models.adding(version=1)) as clients:
            _change(to, base, "model_version_policy { specific { versions: 2 } }", "END", "AVAILABLE")
        yield _compared("hot_swap_pinned", clients)


def slow_copy(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """A version copied file by file under its final name, variables first."""
    base = folder / "m"
    for version in (1, 2):
        models.put(made, version, base)
    with servers.running(program, folder, "--model_name=m", f"--model_base_path={base}") as server:
        with Clients(server.target, models.adding()) as clients:
            models.half_written(made, 3, base)
            time.sleep(max(0.7, 2 * program.poll))
            shutil.copy(made / "3" / "saved_model.pb", base / "3")
        yield _compared("hot_swap_slow_copy", clients)
        expected = [
            state for state in recording.load()[SECTION]["hot_swap_slow_copy_states"].record["states"] if state[0] > 1
        ]
        servers.until(lambda: [3, wire.AVAILABLE, 0, ""] in server.states(), 5)
        got = [state for state in server.states() if state[0] > 1]
        yield Seen(SECTION, "hot_swap_slow_copy_states", "" if got == expected else f"expected {expected}, got {got}")


def _change(to: replay.Wire, base: pathlib.Path, policy: str, *states: str) -> None:
    answer = replay.reload(to, servers.entry("m", base, policy))
    assert answer.code == "OK", answer
    difference = replay.settle(to, _states(*states))
    assert not difference, difference


def _states(first: str, second: str) -> dict[str, list]:
    return {"m": [[1, first, 0, ""], [2, second, 0, ""]]}


def _compared(name: str, clients: Clients) -> Seen:
    """The same versions and errors as recorded, and no answer that contradicts itself."""
    record = recording.load()[SECTION][name].record
    expected = (sorted(map(int, record["first_seen_s"])), sorted(record["errors"]), record["mismatch_spec_vs_output"])
    got = (sorted(clients.versions), sorted(clients.errors), clients.contradictions)
    return Seen(
        SECTION, name, "" if got == expected else f"expected versions, errors, contradictions {expected}, got {got}"
    )
