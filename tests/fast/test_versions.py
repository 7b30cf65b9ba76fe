"""serving.versions: what is loaded when, with models that are nothing but a record of what was done to them."""

import shutil
import threading
import time

import pytest

from serving.status import Code, StatusError
from serving.versions import Versions, latest, on_disk_versions


class Shelf:
    """A folder of versions; loading waits for `gates[version]` where there is one, and fails where a file `bad` lies."""

    def __init__(self, path):
        self.path = path
        self.gates = {}
        self.closed = []
        self.loads = []

    def put(self, *versions, bad=False):
        for version in versions:
            (self.path / str(version)).mkdir(exist_ok=True)
            if bad:
                (self.path / str(version) / "bad").touch()

    def load(self, path):
        version = int(path.name)
        self.loads.append(version)
        if version in self.gates:
            assert self.gates[version].wait(10)
        if (path / "bad").exists():
            raise StatusError(Code.DATA_LOSS, f"{version} is bad")
        return Loaded(version, self.closed)


class Loaded:
    def __init__(self, version, closed):
        self.version = version
        self._closed = closed

    def close(self):
        self._closed.append(self.version)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


@pytest.fixture
def versions(shelf):
    versions = Versions("m", shelf.path, shelf.load)
    yield versions
    versions.close()


def states(versions):
    return {version: state for version, state, _ in versions.status()}


def settle(versions, expected):
    """Poll until the states are `expected`."""
    end = time.monotonic() + 10
    while states(versions) != expected and time.monotonic() < end:
        versions.poll()
        time.sleep(0.005)
    assert states(versions) == expected


def test_only_the_newest_version_is_loaded(shelf, versions):
    shelf.put(1, 2, 10)
    settle(versions, {10: "AVAILABLE"})
    with versions.use(None) as (version, model):
        assert version == model.version == 10


def test_with_policy_latest_two_both_are(shelf):
    versions = Versions("m", shelf.path, shelf.load, latest(2))
    shelf.put(1, 2, 3)
    settle(versions, {3: "AVAILABLE", 2: "AVAILABLE"})


def test_names_that_are_no_integers_are_no_versions(tmp_path):
    for name in ("foo", "7.tmp", "-8", "1e3", "٣", ".9", "0010", "5"):
        (tmp_path / name).mkdir()
    assert sorted(on_disk_versions(tmp_path)) == [5, 10]


def test_the_old_version_answers_until_the_new_one_does_and_goes_then(shelf, versions):
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.gates[2] = threading.Event()
    shelf.put(2)
    settle(versions, {1: "AVAILABLE", 2: "LOADING"})
    with versions.use(None) as (version, _):
        assert version == 1
    shelf.gates[2].set()
    settle(versions, {1: "END", 2: "AVAILABLE"})
    assert shelf.closed == [1]


def test_a_call_under_way_keeps_its_version_and_the_last_one_out_closes_it(shelf, versions):
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    with versions.use(None) as (_, model):
        with versions.use(1):
            shelf.put(2)
            settle(versions, {1: "UNLOADING", 2: "AVAILABLE"})
            with pytest.raises(StatusError, match=r"Servable not found for request: Specific\(m, 1\)"), versions.use(1):
                pass
        assert model.version == 1 and shelf.closed == []
    assert shelf.closed == [1] and states(versions) == {1: "END", 2: "AVAILABLE"}


def test_a_version_that_does_not_load_leaves_the_old_one_and_says_why(shelf, versions):
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    [(_, _, error), _] = versions.status()
    assert (error.code, str(error)) == (15, "2 is bad")
    assert shelf.closed == []


def test_it_is_not_tried_again_before_its_files_change_and_then_at_once(shelf, versions):
    shelf.put(1)
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    for _ in range(5):
        versions.poll()
    assert shelf.loads.count(2) == 1
    (shelf.path / "2" / "bad").unlink()
    settle(versions, {1: "END", 2: "AVAILABLE"})


def test_it_is_tried_again_after_the_interval_as_often_as_told(shelf):
    versions = Versions("m", shelf.path, shelf.load, max_retries=2, retry_interval=0.0)
    shelf.put(1, bad=True)
    end = time.monotonic() + 10
    while len(shelf.loads) < 3 and time.monotonic() < end:
        versions.poll()
        time.sleep(0.005)
    settle(versions, {1: "END"})
    for _ in range(5):
        versions.poll()
        time.sleep(0.01)
    assert shelf.loads == [1, 1, 1]


def test_a_version_that_takes_for_ever_holds_up_no_other(shelf, versions):
    shelf.gates[2] = threading.Event()
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2)
    settle(versions, {1: "AVAILABLE", 2: "LOADING"})
    shelf.put(3)
    settle(versions, {1: "END", 2: "LOADING", 3: "AVAILABLE"})
    shelf.gates[2].set()
    settle(versions, {1: "END", 2: "END", 3: "AVAILABLE"})
    assert shelf.closed == [1, 2]


def test_an_error_nobody_foresaw_is_an_error_of_that_version(shelf):
    def load(path):
        raise RuntimeError("surprise")

    versions = Versions("m", shelf.path, load)
    shelf.put(1)
    settle(versions, {1: "END"})
    assert str(versions.status()[0][2]) == "RuntimeError: surprise"


def test_when_the_loaded_one_is_deleted_the_next_lower_takes_over_and_in_the_end_nothing(shelf, versions):
    shelf.put(1, 2)
    settle(versions, {2: "AVAILABLE"})
    shutil.rmtree(shelf.path / "2")
    settle(versions, {1: "AVAILABLE", 2: "END"})
    shutil.rmtree(shelf.path / "1")
    settle(versions, {1: "END", 2: "END"})
    with pytest.raises(StatusError, match=r"Servable not found for request: Latest\(m\)") as failure, versions.use(None):
        pass
    assert failure.value.code == 5
    shelf.put(3)
    settle(versions, {1: "END", 2: "END", 3: "AVAILABLE"})


def test_when_the_whole_folder_goes_the_loaded_version_stays(shelf, versions):
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shutil.rmtree(shelf.path)
    versions.poll()
    assert states(versions) == {1: "AVAILABLE"}


def test_a_lower_version_that_appears_is_ignored(shelf, versions):
    shelf.put(3)
    settle(versions, {3: "AVAILABLE"})
    shelf.put(2)
    versions.poll()
    assert states(versions) == {3: "AVAILABLE"} and shelf.loads == [3]


def test_waiting_ends_with_the_version_or_with_why_there_is_none(shelf, versions):
    assert versions.wait_available(0.05) is None
    shelf.put(1, bad=True)
    versions.poll()
    with pytest.raises(StatusError, match="1 is bad"):
        versions.wait_available(10)
    assert versions.wait_available(None, stopped=lambda: True) is None
    shelf.put(2)
    versions.poll()
    assert versions.wait_available(10) == 2


def test_a_lower_version_is_served_where_the_newest_does_not_load_at_the_start(shelf, versions):
    shelf.put(1)
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    assert versions.wait_available(1) == 1
