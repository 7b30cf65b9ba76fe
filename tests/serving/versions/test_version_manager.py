"""serving.versions.version_manager: what is loaded when. States and texts are those that a TensorFlow Serving 2.16.1 was seen to
have."""

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


def test_the_others_are_not_found(shelf, versions):
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


def test_names_of_digits_are_versions_and_others_are_not(tmp_path):
    for name in ("foo", "7.tmp", "-8", "+6", "1e3", "٣", ".9", "0010", "5", " 4", "1_2", "9" * 19):
        (tmp_path / name).mkdir(exist_ok=True)
    assert sorted(on_disk_versions(tmp_path)) == [5, 10]
    assert on_disk_versions(tmp_path)[10].name == "0010"
    (tmp_path / "10").mkdir()
    assert on_disk_versions(tmp_path)[10].name == "10"
    assert on_disk_versions(tmp_path / "absent") is None


def test_the_old_version_answers_until_the_new_one_does_and_goes_then(shelf, versions):
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


def test_a_call_under_way_keeps_its_version_and_the_last_one_out_closes_it(shelf, versions):
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


def test_of_several_versions_that_are_not_wanted_the_highest_stays_until_a_wanted_one_is_there(shelf, followed):
    shelf.put(1, 2, 3)
    versions = followed(specific(1, 2))
    settle(versions, {1: "AVAILABLE", 2: "AVAILABLE"})
    gate = shelf.hold(3)
    versions.follow(shelf.path, specific(3))
    settle(versions, {1: "END", 2: "AVAILABLE", 3: "LOADING"})
    gate.set()
    settle(versions, {1: "END", 2: "END", 3: "AVAILABLE"})


def test_one_wanted_version_is_enough_for_the_others_to_go(shelf, followed):
    versions = followed(latest(2))
    shelf.put(1, 2)
    settle(versions, {1: "AVAILABLE", 2: "AVAILABLE"})
    shelf.put(3, bad=True)
    settle(versions, {1: "END", 2: "AVAILABLE", 3: "END"})


def test_a_version_that_does_not_load_leaves_the_old_one_and_says_why(shelf, versions):
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    [(_, _, error), (_, _, nothing)] = versions.status()
    assert (error.code, str(error), nothing) == (15, "2 is bad", None)
    assert shelf.closed == []


def test_a_version_with_tries_left_is_loading_and_not_tried_again_before_its_time(shelf, followed):
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
def test_it_is_tried_again_as_soon_as_its_files_change(shelf, followed, retries):
    versions = followed(loading=LoadOptions(max_retries=retries, retry_interval=60))
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "LOADING" if retries else "END"})
    eventually(lambda: shelf.loads, [1, 2], versions.poll)
    (shelf.path / "2" / "bad").unlink()
    settle(versions, {1: "END", 2: "AVAILABLE"})


def test_one_that_failed_and_was_taken_away_is_loaded_when_it_comes_back(shelf, versions):
    shelf.put(1)
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    shutil.rmtree(shelf.path / "2")
    versions.poll()
    shelf.put(2)
    settle(versions, {1: "END", 2: "AVAILABLE"})


def test_one_that_failed_gets_another_chance_when_it_is_wanted_again(shelf, followed):
    versions = followed(specific(1, 2))
    shelf.put(1)
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    for policy in (specific(1), specific(1, 2)):
        versions.follow(shelf.path, policy)
        versions.poll()
    eventually(lambda: shelf.loads.count(2), 2)


@pytest.mark.parametrize("interval", [0.0, -1.0])
def test_it_is_tried_again_after_the_interval_as_often_as_told(shelf, followed, interval):
    versions = followed(loading=LoadOptions(max_retries=2, retry_interval=interval))
    shelf.put(1, bad=True)
    settle(versions, {1: "END"})
    for _ in range(5):
        versions.poll()
    assert shelf.loads == [1, 1, 1] and str(versions.status()[0][2]) == "1 is bad"


def test_a_version_that_takes_for_ever_holds_up_no_other_and_comes_too_late(shelf, versions):
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


def test_a_half_written_version_holds_up_no_newer_one(shelf, followed):
    versions = followed(loading=LoadOptions(max_retries=5, retry_interval=60))
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "LOADING"})
    shelf.put(3)
    settle(versions, {1: "END", 2: "LOADING", 3: "AVAILABLE"})


def test_loads_take_turns_where_there_are_so_many_slots(shelf, followed):
    versions = followed(set, slots=threading.BoundedSemaphore(1))
    gates = [shelf.hold(1), shelf.hold(2)]
    shelf.put(1, 2)
    eventually(lambda: sorted(states(versions).values()), ["LOADING", "START"], versions.poll)
    for gate in gates:
        gate.set()
    settle(versions, {2: "AVAILABLE", 1: "AVAILABLE"})


def test_an_error_nobody_foresaw_is_an_error_of_that_version(shelf):
    def load(path):
        raise RuntimeError("surprise")

    versions = VersionManager("m", load, ONCE)
    versions.follow(shelf.path, latest(1))
    shelf.put(1)
    settle(versions, {1: "END"})
    error = versions.status()[0][2]
    assert (error.code, str(error)) == (Code.INTERNAL, "RuntimeError: surprise")


def test_when_the_loaded_one_is_deleted_the_next_lower_takes_over_and_in_the_end_nothing(shelf, versions):
    shelf.put(1, 2)
    settle(versions, {2: "AVAILABLE"})
    shutil.rmtree(shelf.path / "2")
    settle(versions, {1: "AVAILABLE", 2: "END"})
    shutil.rmtree(shelf.path / "1")
    settle(versions, {1: "END", 2: "END"})
    assert refusal(versions, None) == (5, "Servable not found for request: Latest(m)")
    shelf.put(3)
    settle(versions, {1: "END", 2: "END", 3: "AVAILABLE"})


def test_when_the_whole_folder_goes_the_loaded_version_stays(shelf, versions):
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    shutil.rmtree(shelf.path)
    versions.poll()
    assert states(versions) == {1: "AVAILABLE"}


def test_a_lower_version_that_appears_and_new_content_are_ignored(shelf, versions):
    shelf.put(3)
    settle(versions, {3: "AVAILABLE"})
    shelf.put(2)
    shelf.put(3, bad=True)
    versions.poll()
    assert states(versions) == {3: "AVAILABLE"} and shelf.loads == [3]


def test_a_version_that_is_loaded_stays_what_it_is_when_the_folder_changes(shelf, versions, tmp_path):
    shelf.put(2)
    settle(versions, {2: "AVAILABLE"})
    other = Shelf(tmp_path / "other")
    other.put(1, 2)
    versions.follow(other.path, latest(1))
    versions.poll()
    with versions.handle(None) as (version, model):
        assert version == 2 and model.path == shelf.path / "2"


def test_a_model_that_is_left_ends_and_can_come_back(shelf, followed):
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


def test_a_lower_version_is_served_where_the_newest_does_not_load_and_nothing_else_is(shelf, followed):
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


def test_failures_are_known_after_the_first_try_or_the_last(shelf, followed):
    versions = followed(loading=LoadOptions(max_retries=1, retry_interval=60))
    assert versions.failures(early=True) == []
    shelf.put(1, bad=True)
    eventually(lambda: [version for version, _ in versions.failures(early=True)], [1], versions.poll)
    assert versions.failures(early=False) == [] and versions.tried(1) and states(versions) == {1: "LOADING"}
    versions.leave()
    settle(versions, {1: "END"})


def test_listeners_are_told(shelf, followed):
    told = []
    versions = followed(listeners=[lambda *event: told.append(event)])
    shelf.put(1)
    settle(versions, {1: "AVAILABLE"})
    eventually(lambda: [event[:3] for event in told], [(LOAD_STARTED, "m", 1), (LOAD_SUCCEEDED, "m", 1)])
    assert 0 <= told[1][3] < 10
    shelf.put(2, bad=True)
    settle(versions, {1: "AVAILABLE", 2: "END"})
    eventually(lambda: [event[:3] for event in told[2:]], [(LOAD_STARTED, "m", 2), (LOAD_FAILED, "m", 2)])
    assert str(told[3][3]) == "2 is bad"
    versions.leave()
    eventually(lambda: told[4:], [(UNLOADED, "m", 1, None)])
