"""serving.versions.version_manager: when versions are loaded and unloaded, with the states and texts of TensorFlow
Serving 2.16.1."""

import shutil
import threading

import pytest

from serving.model_config import latest
from serving.status import Code, StatusError
from serving.versions.loader import LOAD_FAILED, LOAD_STARTED, LOAD_SUCCEEDED, UNLOADED, LoadOptions
from serving.versions.version_directory import on_disk_versions
from serving.versions.version_manager import VersionManager
from tests.support.shelves import Shelf, eventually

pytestmark = pytest.mark.fast

ONCE = LoadOptions(max_retries=0)
NEWEST = latest(1)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


@pytest.fixture
def followed(shelf):
    """Makes the VersionManager of the shelf."""
    made = []

    def follow(policy=NEWEST, loading=ONCE, **options):
        made.append(VersionManager("m", shelf.load, loading, **options))
        made[-1].follow(shelf.path, policy)
        return made[-1]

    yield follow
    for versions in made:
        versions.close()


@pytest.fixture
def versions(followed):
    return followed()


def states(versions):
    return {version: state for version, state, _ in versions.status()}


def settle(versions, expected):
    """Poll until the states are `expected`."""
    eventually(lambda: states(versions), expected, versions.poll)


def refusal(versions, version):
    with pytest.raises(StatusError) as failure, versions.handle(version):
        pass
    return failure.value.code, str(failure.value)


def specific(*chosen):
    return lambda versions: set(chosen) & set(versions)


def test_only_the_newest_version_is_loaded(shelf, versions):
    shelf.put(1, 2, 10)
    settle(versions, {10: "AVAILABLE"})
    with versions.handle(None) as (version, model):
        assert version == model.version == 10


def test_other_versions_are_not_found(shelf, versions):
    assert refusal(versions, None) == (5, "Servable not found for request: Latest(m)")
    shelf.put(1, 2)
    settle(versions, {2: "AVAILABLE"})
    assert refusal(versions, 1) == (5, "Servable not found for request: Specific(m, 1)")
    assert refusal(versions, 0) == (5, "Servable not found for request: Specific(m, 0)")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (latest(0), {4}),
        (latest(2), {3, 4}),
        (latest(9), {1, 3, 4}),
        (set, {1, 3, 4}),
        (specific(1, 3), {1, 3}),
        (specific(1, 7), {1}),
        (specific(7), set()),
        (specific(), set()),
    ],
)
def test_policies(shelf, followed, policy, expected):
    shelf.put(1, 3, 4)
    versions = followed(policy)
    versions.poll()
    settle(versions, dict.fromkeys(expected, "AVAILABLE"))
    assert [version for version, _, _ in versions.status()] == sorted(expected, reverse=True)


def test_names_of_versions_are_parsed_like_tensorflow_s(tmp_path):
    versions = {
        "0010": 10,
        "5": 5,
        " 4": 4,
        "\t3\n ": 3,
        "-8": -8,
        "-0": 0,
        str(2**63 - 1): 2**63 - 1,
        "-" + str(2**63): -(2**63),
    }
    others = (
        "foo",
        "7.tmp",
        "+6",
        "1e3",
        "٣",
        "5\xa0",
        ".9",
        "1_2",
        "- 1",
        "--1",
        "0x1",
        "",
        str(2**63),
        "9" * 19,
        "-" + "9" * 19,
    )
    for name in (*versions, *filter(None, others)):
        (tmp_path / name).mkdir()
    assert on_disk_versions(tmp_path) == {version: tmp_path / name for name, version in versions.items()}
    assert on_disk_versions(tmp_path)[10].name == "0010"
    (tmp_path / "10").mkdir()
    assert on_disk_versions(tmp_path)[10].name == "10"
    assert on_disk_versions(tmp_path / "absent") is None


def test_the_old_version_answers_until_the_new_one_is_available(shelf, versions):
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    gate = shelf.hold(2)
    shelf.put(2)
    settle(versions, {1: "AVAILABLE", 2: "LOADING"})
    with versions.handle(None) as (version, _):
        assert version == 1
    assert refusal(versions, 2) == (5, "Servable not found for request: Specific(m, 2)")
    gate.set()
    settle(versions, {1: "END", 2: "AVAILABLE"})
    assert shelf.closed == [1]


def test_a_call_keeps_its_version_and_the_last_release_closes_it(shelf, versions):
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    with versions.handle(None) as (_, model):
        with versions.handle(1):
            shelf.put(2)
            settle(versions, {1: "UNLOADING", 2: "AVAILABLE"})
            assert refusal(versions, 1) == (5, "Servable not found for request: Specific(m, 1)")
        assert model.version == 1 and shelf.closed == []
    settle(versions, {1: "END", 2: "AVAILABLE"})
    assert shelf.closed == [1]


def test_a_change_of_policy_loads_and_unloads(shelf, followed):
    shelf.put(1, 2, 3)
    versions = followed(set)
    settle(versions, dict.fromkeys((1, 2, 3), "AVAILABLE"))
    versions.follow(shelf.path, specific(1))
    settle(versions, {1: "AVAILABLE", 2: "END", 3: "END"})
    versions.follow(shelf.path, specific(1, 2))
    settle(versions, {1: "AVAILABLE", 2: "AVAILABLE", 3: "END"})
    versions.follow(shelf.path, specific(7))
    settle(versions, {1: "END", 2: "END", 3: "END"})
    assert shelf.loads.count(2) == 2 and sorted(shelf.closed) == [1, 2, 2, 3]


def test_the_highest_unaspired_version_stays_until_an_aspired_one_is_available(shelf, followed):
    shelf.put(1, 2, 3)
    versions = followed(specific(1, 2))
    settle(versions, {1: "AVAILABLE", 2: "AVAILABLE"})
    gate = shelf.hold(3)
    versions.follow(shelf.path, specific(3))
    settle(versions, {1: "END", 2: "AVAILABLE", 3: "LOADING"})
    gate.set()
    settle(versions, {1: "END", 2: "END", 3: "AVAILABLE"})


def test_one_available_aspired_version_retires_all_others(shelf, followed):
    versions = followed(latest(2))
    shelf.put(1, 2)
    settle(versions, {1: "AVAILABLE", 2: "AVAILABLE"})
    shelf.put(3, bad=True)
    settle(versions, {1: "END", 2: "AVAILABLE", 3: "END"})


def test_a_failed_version_keeps_the_old_one_and_reports_its_error(shelf, versions):
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    [(_, _, error), (_, _, nothing)] = versions.status()
    assert (error.code, str(error), nothing) == (15, "2 is bad", None)
    assert shelf.closed == []


def test_a_failed_version_with_retries_left_is_loading_until_the_interval_is_over(shelf, followed):
    versions = followed(loading=LoadOptions(max_retries=5, retry_interval=60))
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2, bad=True)
    eventually(lambda: shelf.loads, [1, 2], versions.poll)
    for _ in range(5):
        versions.poll()
    assert shelf.loads == [1, 2] and states(versions) == {1: "AVAILABLE", 2: "LOADING"}
    assert [error for _, _, error in versions.status()] == [None, None]


@pytest.mark.parametrize("retries", [0, 5])
def test_a_failed_version_is_loaded_again_when_its_files_change(shelf, followed, retries):
    versions = followed(loading=LoadOptions(max_retries=retries, retry_interval=60))
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "LOADING" if retries else "END"})
    eventually(lambda: shelf.loads, [1, 2], versions.poll)
    (shelf.path / "2" / "bad").unlink()
    settle(versions, {1: "END", 2: "AVAILABLE"})


def test_a_failed_version_is_loaded_again_after_its_folder_was_removed(shelf, versions):
    shelf.put(1)
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    shutil.rmtree(shelf.path / "2")
    versions.poll()
    shelf.put(2)
    settle(versions, {1: "END", 2: "AVAILABLE"})


def test_a_failed_version_is_loaded_again_when_it_is_aspired_again(shelf, followed):
    versions = followed(specific(1, 2))
    shelf.put(1)
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    for policy in (specific(1), specific(1, 2)):
        versions.follow(shelf.path, policy)
        versions.poll()
    eventually(lambda: shelf.loads.count(2), 2)


@pytest.mark.parametrize("interval", [0.0, -1.0])
def test_a_failed_load_is_retried_after_the_interval_up_to_the_limit(shelf, followed, interval):
    versions = followed(loading=LoadOptions(max_retries=2, retry_interval=interval))
    shelf.put(1, bad=True)
    settle(versions, {1: "END"})
    for _ in range(5):
        versions.poll()
    assert shelf.loads == [1, 1, 1] and str(versions.status()[0][2]) == "1 is bad"


def test_a_slow_load_delays_no_other_version_and_is_cancelled_when_superseded(shelf, versions):
    gate = shelf.hold(2)
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2)
    settle(versions, {1: "AVAILABLE", 2: "LOADING"})
    shelf.put(3)
    settle(versions, {1: "END", 2: "LOADING", 3: "AVAILABLE"})
    gate.set()
    settle(versions, {1: "END", 2: "END", 3: "AVAILABLE"})
    eventually(lambda: shelf.closed, [1, 2])
    [_, (_, _, error), _] = versions.status()
    assert (error.code, str(error)) == (1, "Loading of servable cancelled")


def test_a_half_written_version_delays_no_newer_one(shelf, followed):
    versions = followed(loading=LoadOptions(max_retries=5, retry_interval=60))
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "LOADING"})
    shelf.put(3)
    settle(versions, {1: "END", 2: "LOADING", 3: "AVAILABLE"})


def test_concurrent_loads_are_limited_by_the_slots(shelf, followed):
    versions = followed(set, slots=threading.BoundedSemaphore(1))
    gates = [shelf.hold(1), shelf.hold(2)]
    shelf.put(1, 2)
    eventually(lambda: sorted(states(versions).values()), ["LOADING", "START"], versions.poll)
    for gate in gates:
        gate.set()
    settle(versions, {2: "AVAILABLE", 1: "AVAILABLE"})


def test_an_unexpected_exception_fails_only_its_version(shelf):
    def load(path):
        raise RuntimeError("surprise")

    versions = VersionManager("m", load, ONCE)
    versions.follow(shelf.path, latest(1))
    shelf.put(1)
    settle(versions, {1: "END"})
    error = versions.status()[0][2]
    assert (error.code, str(error)) == (Code.INTERNAL, "RuntimeError: surprise")


def test_a_deleted_version_is_replaced_by_the_next_lower_one_if_any(shelf, versions):
    shelf.put(1, 2)
    settle(versions, {2: "AVAILABLE"})
    shutil.rmtree(shelf.path / "2")
    settle(versions, {1: "AVAILABLE", 2: "END"})
    shutil.rmtree(shelf.path / "1")
    settle(versions, {1: "END", 2: "END"})
    assert refusal(versions, None) == (5, "Servable not found for request: Latest(m)")
    shelf.put(3)
    settle(versions, {1: "END", 2: "END", 3: "AVAILABLE"})


def test_the_loaded_version_survives_the_removal_of_the_base_path(shelf, versions):
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shutil.rmtree(shelf.path)
    versions.poll()
    assert states(versions) == {1: "AVAILABLE"}


def test_a_new_lower_version_and_changed_files_of_a_loaded_one_are_ignored(shelf, versions):
    shelf.put(3)
    settle(versions, {3: "AVAILABLE"})
    shelf.put(2)
    shelf.put(3, bad=True)
    versions.poll()
    assert states(versions) == {3: "AVAILABLE"} and shelf.loads == [3]


def test_a_loaded_version_is_kept_when_the_base_path_changes(shelf, versions, tmp_path):
    shelf.put(2)
    settle(versions, {2: "AVAILABLE"})
    other = Shelf(tmp_path / "other")
    other.put(1, 2)
    versions.follow(other.path, latest(1))
    versions.poll()
    with versions.handle(None) as (version, model):
        assert version == 2 and model.path == shelf.path / "2"


def test_leave_unloads_a_model_and_follow_restores_it(shelf, followed):
    versions = followed(loading=LoadOptions(max_retries=5, retry_interval=60))
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "LOADING"})
    versions.leave()
    settle(versions, {1: "END", 2: "END"})
    assert versions.newest() is None
    versions.follow(shelf.path, specific(1))
    settle(versions, {1: "AVAILABLE", 2: "END"})


def test_a_lower_version_is_the_fallback_when_the_newest_fails_and_none_is_served(shelf, followed):
    versions = followed(loading=LoadOptions(max_retries=5, retry_interval=60))
    shelf.put(1, 2)
    shelf.put(3, 4, bad=True)
    settle(versions, {2: "AVAILABLE", 3: "END", 4: "LOADING"})
    assert versions.failures(early=True) == []
    assert [(version, str(error)) for version, error in versions.failures(early=True, with_fallback=False)] == [
        (4, "4 is bad")
    ]
    (shelf.path / "4" / "bad").unlink()
    settle(versions, {2: "END", 3: "END", 4: "AVAILABLE"})


def test_failures_are_reported_after_the_first_try_or_the_last(shelf, followed):
    versions = followed(loading=LoadOptions(max_retries=1, retry_interval=60))
    assert versions.failures(early=True) == []
    shelf.put(1, bad=True)
    eventually(lambda: [version for version, _ in versions.failures(early=True)], [1], versions.poll)
    assert versions.failures(early=False) == [] and versions.tried(1) and states(versions) == {1: "LOADING"}
    versions.leave()
    settle(versions, {1: "END"})


def test_listeners_receive_each_event(shelf, followed):
    events = []
    versions = followed(listeners=[lambda *event: events.append(event)])
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    eventually(lambda: [event[:3] for event in events], [(LOAD_STARTED, "m", 1), (LOAD_SUCCEEDED, "m", 1)])
    assert 0 <= events[1][3] < 10
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    eventually(lambda: [event[:3] for event in events[2:]], [(LOAD_STARTED, "m", 2), (LOAD_FAILED, "m", 2)])
    assert str(events[3][3]) == "2 is bad"
    versions.leave()
    eventually(lambda: events[4:], [(UNLOADED, "m", 1, None)])
