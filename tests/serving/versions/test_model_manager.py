"""serving.versions.model_manager: configs, reloads and labels, with the codes, texts and states of TensorFlow Serving
2.16.1."""

import shutil
import threading

import pytest
from google.protobuf import text_format

from serving import protos
from serving.status import StatusError
from serving.versions.loader import LoadOptions
from serving.versions.model_manager import ManagerOptions, ModelManager
from tests.support.shelves import Shelf, eventually

pytestmark = pytest.mark.fast

ONCE = LoadOptions(max_retries=0)
# The tests poll the disk themselves.
BY_HAND = ManagerOptions(ONCE, poll_interval=1000.0)
LABEL_UNAVAILABLE = "Request to assign label to version {} of model add, which is not currently available for inference"
NEITHER = (
    "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
    "ModelServerConfig::model_platform, model name is noplat"
)
OTHER_TYPE = "ModelServerConfig::model_type choice 2 not supported."
TRANSITION = (
    "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
)
TENSORFLOW = 'model_platform: "tensorflow"'
SPECIFIC = "model_version_policy { specific { versions: 1 versions: 2 } }"
UNKNOWN, INVALID, NOT_FOUND, PRECONDITION = 2, 3, 5, 9


@pytest.fixture
def shelf(tmp_path):
    shelf = Shelf(tmp_path / "add")
    shelf.put(1, 2, 3)
    return shelf


@pytest.fixture
def make(shelf):
    made = []

    def models(options=BY_HAND):
        made.append(ModelManager(shelf.load, options))
        return made[-1]

    yield models
    for models in made:
        models.close()


@pytest.fixture
def add(shelf):
    """Makes the text of a config entry for the shelf's model, with more fields as arguments."""
    return lambda *parts, name="add": f'config {{ name: "{name}" base_path: "{shelf.path}" {" ".join(parts)} }}'


@pytest.fixture
def models(make, add):
    """A manager with versions 1 and 2 of the model add."""
    models = make()
    models.start(config(add(TENSORFLOW, SPECIFIC)))
    assert models.wait(10)
    eventually(lambda: states(models)["add"], {1: "AVAILABLE", 2: "AVAILABLE"})
    return models


def config(*listed):
    return text_format.Parse(f"model_config_list {{ {' '.join(listed)} }}", protos.load().config.ModelServerConfig())


def spec(name="add", **choice):
    made = text_format.Parse(f'name: "{name}"', protos.load().predict.PredictRequest().model_spec)
    if "version" in choice:
        made.version.value = choice["version"]
    if "label" in choice:
        made.version_label = choice["label"]
    return made


def used(models, **choice):
    with models.handle(spec(**choice)) as (version, model):
        assert model.version == version
        return version


def refused(call, *arguments):
    with pytest.raises(StatusError) as failure, call(*arguments):
        pass
    return failure.value.code, str(failure.value)


def reload_refused(models, *listed):
    with pytest.raises(StatusError) as failure:
        models.reload(config(*listed))
    return failure.value.code, str(failure.value)


def states(models):
    return {name: {version: state for version, state, _ in versions} for name, versions in models.states().items()}


def test_a_spec_selects_a_model_and_a_version(models):
    assert used(models) == 2 and used(models, version=1) == 1
    assert refused(models.handle, spec(name="")) == (INVALID, "ModelSpec has no name specified.")
    assert refused(models.handle, spec(name="", label="x")) == (INVALID, "ModelSpec has no name specified.")
    assert refused(models.handle, spec(version=99)) == (NOT_FOUND, "Servable not found for request: Specific(add, 99)")
    assert refused(models.handle, spec(version=0)) == (NOT_FOUND, "Servable not found for request: Specific(add, 0)")
    assert refused(models.handle, spec("nope")) == (NOT_FOUND, "Servable not found for request: Latest(nope)")
    assert refused(models.handle, spec("nope", version=7)) == (
        NOT_FOUND,
        "Servable not found for request: Specific(nope, 7)",
    )
    for name in ("add", "nope"):
        for label in ("stable", ""):
            assert refused(models.handle, spec(name, label=label)) == (
                INVALID,
                f"Unrecognized servable version label: {label}",
            )


def test_status_ignores_labels_and_lists_the_newest_version_first(models):
    assert [version for version, _, _ in models.status(spec())] == [2, 1]
    assert [version for version, _, _ in models.status(spec(label="nope"))] == [2, 1]
    assert models.status(spec(version=1)) == [(1, "AVAILABLE", None)]
    for asked, text in (
        (spec(version=3), "Could not find version 3 of model add"),
        (spec("nope", version=1), "Could not find version 1 of model nope"),
        (spec("nope"), "Could not find any versions of model nope"),
        (spec(""), "Could not find any versions of model "),
    ):
        assert refused(models.status, asked) == (NOT_FOUND, text)


def test_labels_need_available_versions(models, add):
    models.reload(config(add(TENSORFLOW, "model_version_policy { specific { versions: 1 } }")))
    models.poll()
    eventually(lambda: states(models)["add"], {1: "AVAILABLE", 2: "END"})
    labels = 'version_labels { key: "canary" value: 2 } version_labels { key: "stable" value: 1 }'
    assert reload_refused(models, add(TENSORFLOW, SPECIFIC, labels)) == (PRECONDITION, LABEL_UNAVAILABLE.format(2))
    models.poll()
    assert states(models)["add"] == {1: "AVAILABLE", 2: "END"}
    models.reload(config(add(TENSORFLOW, SPECIFIC)))
    models.poll()
    eventually(lambda: states(models)["add"], {1: "AVAILABLE", 2: "AVAILABLE"})
    models.reload(config(add(TENSORFLOW, SPECIFIC, labels)))
    assert (used(models, label="stable"), used(models, label="canary")) == (1, 2)


def test_a_reload_moves_or_removes_labels_and_a_refused_one_keeps_them(models, add):
    models.reload(config(add(TENSORFLOW, SPECIFIC, 'version_labels { key: "stable" value: 1 }')))
    models.reload(config(add(TENSORFLOW, SPECIFIC, 'version_labels { key: "stable" value: 2 }')))
    assert used(models, label="stable") == 2
    for version in (3, -1):
        label = f'version_labels {{ key: "stable" value: {version} }}'
        assert reload_refused(models, add(TENSORFLOW, SPECIFIC, label)) == (
            PRECONDITION,
            LABEL_UNAVAILABLE.format(version),
        )
    assert used(models, label="stable") == 2
    models.reload(config(add(TENSORFLOW, SPECIFIC)))
    assert refused(models.handle, spec(label="stable")) == (INVALID, "Unrecognized servable version label: stable")


def test_the_flag_allows_only_new_labels_on_unavailable_versions(make, add):
    models = make(ManagerOptions(ONCE, 1000.0, labels_for_unavailable=True))
    models.start(config(add(TENSORFLOW, SPECIFIC, 'version_labels { key: "stable" value: 1 }')))
    eventually(lambda: states(models)["add"], {1: "AVAILABLE", 2: "AVAILABLE"})
    labels = 'version_labels {{ key: "next" value: 9 }} version_labels {{ key: "stable" value: {} }}'
    models.reload(config(add(TENSORFLOW, SPECIFIC, labels.format(1))))
    assert refused(models.handle, spec(label="next")) == (NOT_FOUND, "Servable not found for request: Specific(add, 9)")
    assert reload_refused(models, add(TENSORFLOW, SPECIFIC, labels.format(9))) == (
        PRECONDITION,
        LABEL_UNAVAILABLE.format(9),
    )
    assert used(models, label="stable") == 1
    models.reload(config(add(TENSORFLOW, SPECIFIC, labels.format(2))))
    assert used(models, label="stable") == 2


def _config(name, path="PATH", platform="tensorflow", more=""):
    return f'config {{ name: "{name}" base_path: "{path}" model_platform: "{platform}" {more} }}'


_TWICE = "Illegal to list model add multiple times in config list"
_RELATIVE = "Expected model {} to have an absolute path or URI; got base_path()={}"
_NOWHERE = "Could not find base path /nowhere for servable b with error NOT_FOUND: /nowhere not found"
_NO_VERSION = "Unable to find a numerical version path for servable b at: PATH"


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        # Further refusals are recorded: tests/conformance, 2_reload and 3_reload_fresh.
        ('ADD config { name: "b" base_path: "PATH" model_type: OTHER }', (INVALID, OTHER_TYPE)),
        (
            'ADD config { name: "b" base_path: "/nowhere" model_platform: "tensorflow" }',
            (INVALID, "Could not find base path /nowhere for servable b with error NOT_FOUND: /nowhere not found"),
        ),
        (
            'ADD config { name: "b" base_path: "PATH" model_platform: "tensorflow" '
            "model_version_policy { specific { versions: 7 } } }",
            (NOT_FOUND, "Unable to find a numerical version path for servable b at: PATH"),
        ),
        # The order of the checks: names, paths, platforms of listed models, labels, platforms of new models, disk.
        ("ADD ADD " + _config("rel", "x", ""), (INVALID, _TWICE)),
        (_config("add", "x", "foo"), (INVALID, _RELATIVE.format("add", "x"))),
        (
            _config("noplat", platform="") + _config("add", more='version_labels { key: "x" value: 7 }'),
            (PRECONDITION, LABEL_UNAVAILABLE.format(7)),
        ),
        (_config("b", "/nowhere") + _config("noplat", platform=""), (INVALID, NEITHER)),
    ],
)
def test_a_refused_reload_changes_nothing(models, add, shelf, listed, expected):
    models.reload(config(add(TENSORFLOW, SPECIFIC, 'version_labels { key: "stable" value: 1 }')))
    code, text = expected
    listed = listed.replace("ADD", add(TENSORFLOW)).replace("PATH", str(shelf.path))
    assert reload_refused(models, listed) == (code, text.replace("PATH", str(shelf.path)))
    models.poll()
    assert states(models) == {"add": {1: "AVAILABLE", 2: "AVAILABLE"}} and used(models, label="stable") == 1
    models.reload(config(add(TENSORFLOW, SPECIFIC)))


def test_only_lists_of_models_are_accepted(models, make):
    for other in ({}, {"custom_model_config": {}}):
        with pytest.raises(StatusError) as failure:
            models.reload(protos.load().config.ModelServerConfig(**other))
        assert (failure.value.code, str(failure.value)) == (PRECONDITION, TRANSITION)
    nothing = make()
    nothing.start(protos.load().config.ModelServerConfig())
    assert nothing.wait(1) and refused(nothing.handle, spec()) == (
        NOT_FOUND,
        "Servable not found for request: Latest(add)",
    )


def test_a_reload_of_the_same_models_returns_at_once_and_the_next_poll_loads_versions(models, shelf, add):
    gate = shelf.hold(3)
    models.reload(config(add("model_type: TENSORFLOW", "model_version_policy { latest {} }")))
    assert states(models) == {"add": {1: "AVAILABLE", 2: "AVAILABLE"}}
    models.poll()
    eventually(lambda: states(models)["add"], {1: "END", 2: "AVAILABLE", 3: "LOADING"})
    gate.set()
    eventually(lambda: states(models)["add"], {1: "END", 2: "END", 3: "AVAILABLE"})


@pytest.mark.parametrize("policy", ["specific { versions: 7 }", "specific {}"])
def test_a_policy_of_absent_versions_is_accepted_and_unloads_all(models, add, policy):
    models.reload(config(add(TENSORFLOW, f"model_version_policy {{ {policy} }}")))
    models.poll()
    eventually(lambda: states(models)["add"], {1: "END", 2: "END"})
    assert refused(models.handle, spec()) == (NOT_FOUND, "Servable not found for request: Latest(add)")


def test_a_reload_waits_for_a_new_model_and_refuses_its_label_until_then(models, shelf, add):
    gate = shelf.hold(3)
    both = (add(TENSORFLOW, SPECIFIC), add(TENSORFLOW, name="addb"))
    labelled = add(TENSORFLOW, 'version_labels { key: "x" value: 3 }', name="addb")
    code, text = reload_refused(models, both[0], labelled)
    assert code == PRECONDITION and "version 3 of model addb" in text
    reload = threading.Thread(target=models.reload, args=(config(*both),))
    reload.start()
    eventually(lambda: states(models).get("addb"), {3: "LOADING"})
    assert reload.is_alive() and used(models) == 2
    assert refused(models.handle, spec("addb")) == (NOT_FOUND, "Servable not found for request: Latest(addb)")
    gate.set()
    reload.join(10)
    assert not reload.is_alive() and used(models, name="addb") == 3


def test_a_reload_unloads_missing_models_and_a_later_one_restores_them(models, add):
    models.reload(config(add(TENSORFLOW, SPECIFIC), add(TENSORFLOW, name="addb")))
    models.reload(config(add(TENSORFLOW, SPECIFIC)))
    eventually(lambda: states(models), {"add": {1: "AVAILABLE", 2: "AVAILABLE"}, "addb": {3: "END"}})
    assert refused(models.handle, spec("addb")) == (NOT_FOUND, "Servable not found for request: Latest(addb)")
    models.reload(config())
    eventually(lambda: states(models)["add"], {1: "END", 2: "END"})
    models.reload(config(add(TENSORFLOW, SPECIFIC)))
    assert used(models) in (1, 2)
    eventually(lambda: states(models)["add"], {1: "AVAILABLE", 2: "AVAILABLE"})


def test_a_model_without_a_name_is_loaded_but_refuses_requests(models, add):
    models.reload(config(add(TENSORFLOW, name="")))
    assert states(models)[""] == {3: "AVAILABLE"}
    eventually(lambda: states(models)["add"], {1: "END", 2: "END"})


def test_a_reload_with_a_missing_base_path_changes_nothing(models, add, shelf):
    models.reload(config(add(TENSORFLOW).replace(str(shelf.path), "/nowhere")))
    models.poll()
    assert states(models) == {"add": {1: "AVAILABLE", 2: "AVAILABLE"}}


def test_a_new_model_that_fails_to_load_refuses_the_whole_reload(models, shelf, add, tmp_path):
    bad = Shelf(tmp_path / "bad")
    bad.put(4)
    bad.put(5, bad=True)
    listed = f'config {{ name: "bad" base_path: "{bad.path}" model_platform: "tensorflow" }}'
    expected = (
        UNKNOWN,
        "1 model(s) did not become available: {{{name: bad version: 5} due to error: DATA_LOSS: 5 is bad}, }",
    )
    assert reload_refused(models, add(TENSORFLOW), listed) == expected
    models.poll()
    assert states(models)["add"] == {1: "AVAILABLE", 2: "AVAILABLE"}
    # The refusal can come before the final state.
    bad_version = spec("bad", version=5)
    eventually(
        lambda: [(number, state, str(error)) for number, state, error in models.status(bad_version)],
        [(5, "END", "5 is bad")],
    )
    (bad.path / "5" / "bad").unlink()
    models.poll()
    eventually(lambda: set(states(models)["bad"].values()), {"END"})
    models.reload(config(add(TENSORFLOW)))


def test_a_model_without_its_folder_does_not_stop_the_polling_of_others(models, shelf, add, tmp_path):
    other = Shelf(tmp_path / "other")
    other.put(1)
    listed = f'config {{ name: "a" base_path: "{other.path}" model_platform: "tensorflow" }}'
    models.reload(config(listed, add(TENSORFLOW)))
    shutil.rmtree(other.path)
    models.poll()
    eventually(lambda: states(models), {"a": {1: "AVAILABLE"}, "add": {1: "END", 2: "END", 3: "AVAILABLE"}})


def test_labels_at_the_start_are_refused_unless_trusted(make, add, shelf):
    labelled = config(add(TENSORFLOW, SPECIFIC, 'version_labels { key: "stable" value: 1 }'))
    with pytest.raises(StatusError) as failure:
        make().start(labelled)
    assert (failure.value.code, str(failure.value)) == (PRECONDITION, LABEL_UNAVAILABLE.format(1))
    assert shelf.loads == []
    gate = shelf.hold(1)
    models = make()
    models.start(labelled, trust_labels=True)
    eventually(lambda: states(models)["add"], {1: "LOADING", 2: "AVAILABLE"})
    assert not models.wait(0.3)
    gate.set()
    assert models.wait(10) and used(models, label="stable") == 1


def test_a_trusted_label_on_a_failed_version_does_not_block_other_versions(make, add, shelf):
    shelf.put(2, bad=True)
    models = make()
    models.start(config(add(TENSORFLOW, SPECIFIC, 'version_labels { key: "canary" value: 2 }')), trust_labels=True)
    assert models.wait(10) and used(models) == 1
    assert refused(models.handle, spec(label="canary")) == (
        NOT_FOUND,
        "Servable not found for request: Specific(add, 2)",
    )


def test_waiting_ends_when_all_models_are_available_or_one_fails(make, add, shelf, tmp_path):
    absent = Shelf(tmp_path / "absent")
    listed = f'config {{ name: "c" base_path: "{absent.path}" model_platform: "tensorflow" }}'
    models = make(ManagerOptions(LoadOptions(max_retries=5, retry_interval=60), poll_interval=1000.0))
    models.start(config(add(TENSORFLOW), listed))
    assert not models.wait(0.2) and not models.wait(None, stopped=lambda: True)
    absent.put(1, bad=True)
    models.poll()
    with pytest.raises(StatusError) as failure:
        models.wait(10)
    assert (failure.value.code, str(failure.value)) == (
        UNKNOWN,
        "1 servable(s) did not become available: {{{name: c version: 1} due to error: DATA_LOSS: 1 is bad}, }",
    )
    absent.put(2)
    models.poll()
    assert models.wait(10)


def test_without_polling_the_disk_is_read_once_and_at_each_reload(make, add, shelf):
    models = make(ManagerOptions(ONCE, poll_interval=0.0))
    models.start(config(add(TENSORFLOW)))
    assert models.wait(10)
    shelf.put(4)
    threading.Event().wait(0.2)
    assert states(models) == {"add": {3: "AVAILABLE"}}
    models.reload(config(add(TENSORFLOW)))
    eventually(lambda: states(models)["add"], {3: "END", 4: "AVAILABLE"})


def test_polling_finds_new_versions(make, add, shelf):
    models = make(ManagerOptions(ONCE, poll_interval=0.01))
    models.start(config(add(TENSORFLOW)))
    assert models.wait(10)
    shelf.put(4)
    eventually(lambda: states(models)["add"], {3: "END", 4: "AVAILABLE"})


@pytest.mark.parametrize(
    ("interval", "polled"),
    [(1000.0, "the folder is polled every 1000 s"), *((poll, "the folder is not polled") for poll in (0, -1))],
)
def test_what_a_model_without_versions_waits_for_is_named(make, add, shelf, interval, polled):
    absent = f'config {{ name: "absent" base_path: "{shelf.path}/none" {TENSORFLOW} }}'
    models = make(ManagerOptions(ONCE, poll_interval=interval))
    never = "model_version_policy { specific { versions: 9 } }"
    models.start(config(add(TENSORFLOW), add(TENSORFLOW, never, name="nine"), absent))
    lines = {line.split()[1]: line for line in models.awaited()}
    what = {
        "add": f"model add waits for a version that its policy chooses at {shelf.path}; {polled}",
        "nine": f"model nine waits for a version that its policy chooses at {shelf.path}; {polled}",
        "absent": f"model absent waits for a folder that can be read at {shelf.path}/none; {polled}",
    }
    if interval >= 0:
        del what["add"]
    else:
        what["absent"] = what["absent"].replace("folder that can be read", "version that its policy chooses")
    assert lines == what


def test_a_config_with_a_logging_config_is_refused_last_and_changes_nothing(make, models, add):
    text = "No request-logger-creator provided."
    logged = "logging_config { }"
    assert reload_refused(models, add(TENSORFLOW, SPECIFIC, logged)) == (INVALID, text)
    assert reload_refused(models, add(TENSORFLOW, SPECIFIC, logged), add(logged, name="noplat"))[1] == NEITHER
    assert reload_refused(models, add(TENSORFLOW, SPECIFIC), add(TENSORFLOW, logged, name="new")) == (INVALID, text)
    assert states(models) == {"add": {1: "AVAILABLE", 2: "AVAILABLE"}}
    models.reload(config(add(TENSORFLOW, SPECIFIC)))
    with pytest.raises(StatusError, match=text):
        make().start(config(add(TENSORFLOW, logged)))


def test_close_waits_for_loads_in_progress(make, add, shelf):
    gate = shelf.hold(3)
    models = make()
    models.start(config(add(TENSORFLOW)))
    eventually(lambda: shelf.loads, [3])
    [load] = [thread for thread in threading.enumerate() if thread.name == "load-add-3"]
    alive = []

    def close():
        models.close()
        alive.append(load.is_alive())

    closing = threading.Thread(target=close)
    closing.start()
    eventually(lambda: states(models)["add"], {3: "END"})
    gate.set()
    closing.join(10)
    assert alive == [False]
