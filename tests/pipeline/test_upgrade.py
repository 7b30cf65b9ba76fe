"""A root that release 0.1.0 made under TFX 1.16 is read and continued by this code, in either lane."""

import contextlib
import json
import pathlib
import sqlite3

import pytest
import tensorflow as tf
from ml_metadata.proto import metadata_store_pb2

from components.savedmodel import version_folder
from pipeline import cli
from pipeline import config as configuration
from pipeline.records import metadata_store
from pipeline.runner import node
from tests.support import release_root
from tests.support.metadata_stores import Store

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The root of the release, elsewhere."""
    return release_root.unpacked(tmp_path_factory.mktemp("upgrade"))


@pytest.fixture
def bitsum(root, capfd):
    """A function: command and arguments -> its output; the command must end with the exit code `code`."""

    def run(command, *arguments, settings=(), code=0):
        knobs = [f"pipeline.root={root}", *settings]
        ended = cli.main([command, *map(str, arguments), *(word for knob in knobs for word in ("--set", knob))])
        output = capfd.readouterr()
        assert ended == code, output.err
        return output.out

    return run


def test_the_pushed_version_its_origin_and_its_history_are_known(bitsum, root):
    # No server answers.
    status = bitsum("status", code=1)
    assert f"version {release_root.VERSION}: files as pushed, addition proven for any length" in status
    assert f"run {release_root.RUN}, {root}/serving/bitsum/{release_root.VERSION}" in status
    lineage = json.loads(bitsum("lineage", "--json"))
    assert (lineage["run"], lineage["margin"]) == (release_root.RUN, pytest.approx(4.20698, abs=1e-5))
    assert lineage["path"] == f"{root}/serving/bitsum/{release_root.VERSION}"
    [row] = json.loads(bitsum("history", "--json"))["runs"]
    assert (row["run"], row["state"]) == (release_root.RUN, "done")


def test_its_model_is_proven_and_has_the_graph_that_was_compared_then(bitsum, root):
    folder = root / "serving" / "bitsum" / release_root.VERSION
    wanted = version_folder.manifest(folder)["origin"]["graph_sha256"]
    assert bitsum("verify", folder, "--graph-sha256", wanted).startswith("proven: addition of any length;")


@pytest.mark.long
def test_a_run_continues_it(bitsum, root):
    output = bitsum("run", settings=release_root.SETTINGS)
    assert "(last blessed model 4.20698)" in output and "13 + 29 = 42" in output
    before, now = json.loads(bitsum("history", "--json"))["runs"]
    assert (before["run"], before["state"], now["state"]) == (release_root.RUN, "done", "done")
    newest = max(version_folder.versions(root / "serving" / "bitsum"))
    # Under the TFX that made the root the model is the same, and nothing is pushed.
    assert f"version {newest} " in output and newest >= int(release_root.VERSION)
    assert f"version {newest}: files as pushed, addition proven for any length" in bitsum("status", code=1)


@pytest.mark.parametrize("version", [9, 11])
def test_a_store_of_another_schema_is_refused_in_the_documented_words(tmp_path, capfd, version):
    documented = (ROOT / "docs/compatibility.md").read_text()
    store = Store(tmp_path / "var")
    with contextlib.closing(sqlite3.connect(tmp_path / "var" / "metadata.sqlite")) as database:
        database.execute("UPDATE MLMDEnv SET schema_version = ?", [version])
        database.commit()
    assert cli.main(["history", *store.settings]) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert f"{tmp_path}/var/metadata.sqlite: its schema is version {version}, and ml-metadata " in line
    assert "needs version 10: use it with the release" in line
    assert "its schema is version 11, and ml-metadata 1.16.0 needs version 10`" in documented
    assert "ML Metadata's schema 10 " in documented


def test_a_store_of_another_schema_on_a_server_is_not_taken_for_a_wrong_login():
    location = metadata_store_pb2.ConnectionConfig()
    location.postgresql.host, location.postgresql.port = "store.example", "5432"
    error = Exception("database version 9 is older than library version 10. Please upgrade")
    line = str(metadata_store.unusable(location, error))
    assert "postgresql at store.example:5432: its schema is version 9" in line and "password" not in line


def test_another_tensorflow_trains_again_on_the_same_data(tmp_path, monkeypatch):
    def keys():
        compiled = node.compile_pipeline(configuration.load(None, [f"pipeline.root={tmp_path / 'var'}"]))
        nodes = [each.pipeline_node for each in compiled.nodes]
        return {each.node_info.id: each.parameters.SerializeToString(deterministic=True) for each in nodes}

    before = keys()
    monkeypatch.setattr(tf, "__version__", "2.99.0")
    assert {id for id, key in keys().items() if key != before[id]} == {"Trainer"}
