"""Roots that were moved, copied or half deleted, in real metadata stores and with real runs."""

import contextlib
import fcntl
import json
import logging
import pathlib
import re
import shutil
import sqlite3

import pytest
from google.protobuf import text_format

from components.data import output_files
from components.errors import BitsumError
from components.progress import LOGGER
from components.savedmodel import version_folder
from pipeline import cli, root_lock, workspace
from pipeline import config as configuration
from pipeline.records import metadata_store, relocation, verdicts
from pipeline.records.lineage_graph import LineageGraph
from pipeline.runner import local, node
from tests.pipeline.conftest import SMALL
from tests.support.metadata_stores import Store

# Characters that are special to LIKE, a shell, str.format and a terminal.
NAMES = ["moved", 'it\'s 100% "moved"_ {0} ü']


@pytest.fixture
def root(tmp_path):
    """A root with two runs, the first of which pushed, used at its present path."""
    store = Store(tmp_path / "root")
    store.run("monday", span=1, version=7)
    store.run("tuesday", span=2, exact=0.5)
    # A neighbour whose name begins with this root's.
    artifacts = store.client.get_artifacts()[:1]
    artifacts[0].custom_properties["of_another"].string_value = f"{store.root}2/artifacts"
    store.client.put_artifacts(artifacts)
    (store.config.push_to / "7").mkdir(parents=True)
    _updated(store.root)
    return store.root


def _options(root, *settings):
    return [word for knob in (f"pipeline.root={root}", *settings) for word in ("--set", knob)]


def _config(root, *settings):
    return configuration.load(None, [f"pipeline.root={root}", *settings])


def _updated(root, *settings):
    lines = []
    config = _config(root, *settings)
    with root_lock.locked(config, "a test", lines.append):
        relocation.update_paths(config, lines.append)
    return lines


def _content(root, *settings):
    """All that a store has, by ML Metadata's own reader, as text without the update times."""
    store = metadata_store.open_store(_config(root, *settings))
    items = [*store.get_artifacts(), *store.get_executions(), *store.get_contexts()]
    for item in items:
        item.ClearField("last_update_time_since_epoch")
    return [text_format.MessageToString(item, as_utf8=True) for item in items]


def _as_text(path):
    """The path as written in a text-format message."""
    return re.sub(r"([\"'\\])", r"\\\1", str(path))


def _expected(content, before, now):
    return [item.replace(f'"{_as_text(before)}/', f'"{_as_text(now)}/') for item in content]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["move", "copy"])
def test_all_paths_in_the_metadata_are_updated(root, name, how):
    before, now = _content(root), root.with_name(name)
    (root.rename if how == "move" else lambda target: shutil.copytree(root, target))(now)
    assert len(_updated(now)) == 1
    assert _content(now) == _expected(before, root, now) != before
    assert f"{root}2/artifacts" in "".join(_content(now))
    if how == "copy":
        assert _content(root) == before
    assert _updated(now) == []


@pytest.mark.parametrize("name", NAMES)
def test_relocate_updates_the_same_paths_through_ml_metadata(root, name, capsys):
    before, now = _content(root), root.with_name(name)
    root.rename(now)
    (now / "serving" / "models.config").write_text(
        f"model_config_list {{ config {{ name: 'm' base_path: '{root}/serving/m' }} }}"
    )
    assert cli.main(["relocate", *_options(now)]) == 0
    output = capsys.readouterr().out
    assert "--yes rewrites them" in output and f"uri {root}/artifacts/" in output
    assert _content(now) == before and relocation.read(now).path == str(root)

    assert cli.main(["relocate", *_options(now), "--yes"]) == 0
    assert _content(now) == _expected(before, root, now)
    assert (relocation.read(now).path, relocation.read(now).former) == (str(now), (str(root),))
    assert str(root) not in (now / "serving" / "models.config").read_text()
    capsys.readouterr()
    assert cli.main(["relocate", *_options(now), "--yes"]) == 0
    assert "nothing to rewrite" in capsys.readouterr().out


def test_relocate_takes_an_old_path(root, capsys):
    """As if the root was moved twice, and used in between by a version without root.json."""
    before, now = _content(root), root.with_name("moved")
    root.rename(now)
    (now / relocation.FILE).unlink()
    _updated(now)
    assert cli.main(["relocate", *_options(now), "--from", str(root), "--yes"]) == 0
    assert _content(now) == _expected(before, root, now)


@pytest.mark.parametrize("how", ["move", "copy"])
def test_a_root_without_root_json_is_located_by_its_artifacts(root, how):
    before, now = _content(root), root.with_name("new")
    (root / relocation.FILE).unlink()
    (root.rename if how == "move" else lambda target: shutil.copytree(root, target))(now)
    [lines] = _updated(now)
    assert ("was moved here from" if how == "move" else "is a copy of") in lines
    assert _content(now) == _expected(before, root, now)


class _Killed(BaseException):
    pass


def test_a_killed_update_is_repeated(root, monkeypatch):
    before, now = _content(root), root.with_name("moved")
    root.rename(now)

    def killed(*_):
        raise _Killed

    for step in ("relocate_model_config", "write"):
        with monkeypatch.context() as patch, pytest.raises(_Killed):
            patch.setattr(relocation, step, killed)
            _updated(now)
        assert relocation.read(now).path == str(root)
    assert len(_updated(now)) == 1
    assert _content(now) == _expected(before, root, now)


def test_the_rewrite_is_atomic(root):
    before, now = _content(root), root.with_name("moved")
    root.rename(now)
    with contextlib.closing(sqlite3.connect(now / "metadata.sqlite")) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON ArtifactProperty BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        )
    with pytest.raises(BitsumError, match=f"cannot replace {root} by {now} in .*: disk I/O error; nothing was changed"):
        _updated(now)
    assert _content(now) == before and relocation.read(now).path == str(root)


@pytest.mark.parametrize("how", ["move", "copy"])
def test_a_copy_does_not_take_over_a_shared_store(tmp_path, how, capsys):
    setting = f"metadata.path={tmp_path / 'metadata.sqlite'}"
    for name in ("root", "other"):
        Store(tmp_path / name, (setting,)).execution("run", "Trainer", {}, {"model": {}}) if name == "root" else None
        workspace.prepare(tmp_path / name)
        _updated(tmp_path / name, setting)
    root, now = tmp_path / "root", tmp_path / "now"
    before = _content(root, setting)
    if how == "move":
        root.rename(now)
        assert len(_updated(now, setting)) == 1
        assert _content(now, setting) == _expected(before, root, now)
        return
    shutil.copytree(root, now)
    for command in (["history"], ["relocate"], ["relocate", "--yes"]):
        assert cli.main([*command, *_options(now, setting)]) == 1
        output = capsys.readouterr().err
        assert "relocate" in output or "--from" in output
        assert "is a copy of" in output and len(output.splitlines()) == 1
    assert _content(root, setting) == before
    # With a separate store it is a root like any other.
    assert len(_updated(now, f"metadata.path={tmp_path / 'own.sqlite'}")) == 1


@pytest.mark.parametrize(
    "command", [["history"], ["lineage"], ["gc"], ["gc", "--delete"], ["status", "--server", "127.0.0.1:1"]]
)
def test_every_command_updates_a_moved_root(root, command, capfd):
    now = root.rename(root.with_name("moved"))
    with open(now / workspace.MARKER) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _give_up_at_once(command, now, capfd)
    cli.main([*command, *_options(now)])
    out, err = capfd.readouterr()
    lines = f"pipeline.root = {now} was moved here from {root}: "
    assert sum(line.startswith(lines) for line in (out + err).splitlines()) == 1
    assert str(root) + "/" not in out.replace(lines, "")
    assert relocation.read(now).path == str(now)
    cli.main([*command, *_options(now)])
    assert lines not in "".join(capfd.readouterr())


def _give_up_at_once(command, root, capfd):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relocation, "_LOCK_SECONDS", 0.0)
        assert cli.main([*command, *_options(root)]) == 1
    output = capfd.readouterr().err
    assert "another program works in it" in output and len(output.splitlines()) == 1


def test_a_node_ignores_the_run_lock_of_its_own_run(root, capfd):
    now = root.rename(root.with_name("moved"))
    (now / root_lock.RUN_LOCK).parent.mkdir()
    (now / root_lock.RUN_LOCK).touch()
    assert cli.main(["node", "verdict", "--run-id", "monday", *_options(now)]) == 0
    out = capfd.readouterr().out
    assert "was moved here from" in out and f"{now}/serving/bitsum/7" in out


def test_metadata_restored_from_the_original_are_updated(root):
    before, now = _content(root), pathlib.Path(shutil.copytree(root, root.with_name("copy")))
    assert len(_updated(now)) == 1 and _updated(now) == []
    shutil.copy(root / "metadata.sqlite", now / "metadata.sqlite")
    [output] = _updated(now)
    assert output.startswith(f"pipeline.root = {now} is a copy of {root}: ")
    assert _content(now) == _expected(before, root, now) and _content(root) == before
    assert _updated(now) == []


def test_a_copy_does_not_wait_for_runs_of_the_original(root, capfd):
    (root / root_lock.RUN_LOCK).parent.mkdir()
    (root / root_lock.RUN_LOCK).write_text(json.dumps({"airflow": "a", "dag": "d", "run": "r"}))
    now = pathlib.Path(shutil.copytree(root, root.with_name("copy")))
    assert cli.main(["gc", "--delete", *_options(now, "pipeline.lock_timeout=1")]) == 0
    assert "is a copy of" in capfd.readouterr().err
    assert (root / root_lock.RUN_LOCK).exists() and not (now / root_lock.RUN_LOCK).exists()
    assert cli.main(["gc", "--delete", *_options(root, "pipeline.lock_timeout=1")]) == 1


class Run:
    """The nodes of a run in `root`, without the server at its end: the result of each, and the reported lines."""

    def __init__(self, root: pathlib.Path):
        self.notes: dict[str, str] = {}
        self.lines: list[str] = []
        config = _config(root, *SMALL)
        workspace.prepare(root)
        run_id = f"run-{len(list(root.glob('run-*')))}"
        (root / run_id).touch()
        stages: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.lines.append(record.getMessage())
        logging.getLogger(LOGGER).addHandler(handler)
        try:
            with root_lock.locked(config, "a test", self.lines.append):
                relocation.update_paths(config, self.lines.append)
                local.run(config, run_id, stages.append, lambda note: self.notes.update({stages[-1]: note}))
            self.push = verdicts.conclude(config, run_id, self.lines.append)
        finally:
            logging.getLogger(LOGGER).removeHandler(handler)

    def done(self) -> set[str]:
        """The steps that ran, except those that are never cached."""
        return {stage for stage, note in self.notes.items() if note == "done"} - {"last blessed", "push"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A root in which the pipeline ran once."""
    root = tmp_path_factory.mktemp("made") / "var"
    Run(root)
    return root


@pytest.fixture
def mine(made, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(made, tmp_path / "mine")


def _files(root):
    """Every file of a root with its content; without locks, logs and the database, which read-only commands may
    change."""
    return {
        path: path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "logs" not in path.parts and path.suffix != ".sqlite"
    }


def test_a_copy_uses_its_own_files_and_outlives_the_original(made, mine):
    original, before = _files(made), _content(made)
    first = Run(mine)
    assert "is a copy of" in first.lines[0] and first.done() == set()
    assert first.push.path == str(mine / "serving" / "bitsum" / str(first.push.version)) and not first.push.is_new
    for folder in (mine / "artifacts" / "StatisticsGen" / "statistics").iterdir():
        shutil.rmtree(folder)
    assert "statistics" in Run(mine).done()
    assert (_files(made), _content(made)) == (original, before)

    second = shutil.copytree(mine, mine.with_name("second"))
    shutil.rmtree(mine)
    run = Run(second)
    assert "was moved here from" in run.lines[0] and run.done() == set()
    uris = [artifact.uri for artifact in metadata_store.open_store(_config(second)).get_artifacts()]
    assert all(uri.startswith(f"{second}/artifacts/") for uri in uris)


@pytest.mark.parametrize(
    ("file", "damage", "word", "stages"),
    [
        (
            "ExampleValidator/anomalies/*/Split-eval/SchemaDiff.pb",
            pathlib.Path.unlink,
            "missing",
            {"validate schema", "data gate"},
        ),
        (
            "ArithmeticValidator/anomalies/*/anomalies.json",
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b" "),
            "changed",
            {"validate sums", "readability check", "data gate"},
        ),
        ("DataGate/blessing/*/more", pathlib.Path.touch, "added", {"data gate"}),
    ],
)
def test_a_step_whose_output_is_damaged_runs_again(mine, file, damage, word, stages):
    [folder] = mine.glob(f"artifacts/{pathlib.PurePath(file).parent}")
    path = folder / pathlib.PurePath(file).name
    damage(path)
    run = Run(mine)
    assert run.done() == stages and not run.push.is_new
    assert any(
        line.startswith("not taken from the cache: ")
        and line.endswith(f"{path} was {word}".replace("was miss", "is miss"))
        for line in run.lines
    ), run.lines
    again = Run(mine)
    assert (again.done(), [line for line in again.lines if "cache" in line]) == (set(), [])


def test_every_output_of_every_step_is_recorded(made):
    lineage = LineageGraph(metadata_store.open_store(_config(made)))
    for artifact in lineage.artifacts.values():
        recorded = artifact.custom_properties[output_files.PROPERTY].string_value
        files = {
            str(path.relative_to(artifact.uri)) for path in pathlib.Path(artifact.uri).rglob("*") if path.is_file()
        }
        assert set(json.loads(recorded)) == files != set(), artifact.uri
        assert output_files.problem(artifact.uri, recorded) is None


def test_artifacts_without_a_file_record_are_reused_if_they_exist(mine):
    with contextlib.closing(sqlite3.connect(mine / "metadata.sqlite")) as database:
        database.execute("DELETE FROM ArtifactProperty WHERE name = ?", (output_files.PROPERTY,))
        database.commit()
    assert _generated(mine, "first") == "cached"
    [examples] = (mine / "artifacts" / "BitstringExampleGen" / "examples").iterdir()
    for file in [path for path in examples.rglob("*") if path.is_file()]:
        file.unlink()
    assert _generated(mine, "second") == "done"
    assert _generated(mine, "third") == "cached"


def _generated(root, run_id):
    """The result of the first step; the later steps depend on the records of their inputs, too."""
    notes = []
    _updated(root)
    local.run(_config(root, *SMALL), run_id, lambda stage: None, notes.append, only="BitstringExampleGen")
    return notes[-1]


@pytest.mark.long
def test_a_moved_series_keeps_its_cache_and_its_spans(tmp_path):
    """Up to the training: steps with a folder of the root as a parameter, and resolvers of earlier spans."""

    def run(root: pathlib.Path, span: int) -> dict[str, str]:
        config = _config(root, *SMALL, f"data.span={span}")
        workspace.prepare(root)
        _updated(root)
        notes, stages, run_id = {}, [], f"{root.name}-{span}"
        for node_id in before_training:
            local.run(config, run_id, stages.append, lambda note: notes.update({stages[-1]: note}), only=node_id)
        return notes

    nodes = node.node_ids(node.compile_pipeline(_config(tmp_path, "data.span=1")))
    before_training = nodes[: nodes.index("SpanWindow") + 1]
    for span in (1, 2):
        run(tmp_path / "one", span)
    (tmp_path / "one").rename(tmp_path / "two")
    notes = run(tmp_path / "two", 2)
    assert {stage for stage, note in notes.items() if note != "cached"} == {"previous span", "base model", "spans"}
    store = metadata_store.open_store(_config(tmp_path / "two"))
    folders = [execution.custom_properties["quarantine_folder"].string_value for execution in store.get_executions()]
    assert {*folders} == {"", *(str(tmp_path / "two" / "quarantine" / f"span-{number}") for number in (1, 2))}


@pytest.mark.long
def test_removed_artifacts_are_made_again_and_nothing_is_pushed_twice(mine):
    shutil.rmtree(mine / "artifacts")
    run = Run(mine)
    assert {"generate", "statistics", "train", "evaluate", "prove", "infra-validate"} <= run.done()
    assert any(line.startswith("Model ") and " is ignored: " in line for line in run.lines), run.lines
    assert not run.push.is_new and len(version_folder.versions(mine / "serving" / "bitsum")) == 1
    assert Run(mine).done() == set()
