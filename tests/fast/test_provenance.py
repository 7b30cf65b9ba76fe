"""Where a version comes from: what was pushed, with its certificate and its graph, and no other file."""

import json
import os

import pytest

from components import graph_identity, version_folder
from components.errors import Refusal
from serving import provenance, rollout


@pytest.fixture
def version(certified_model, tmp_path):
    """version(origin) -> the folder of a pushed version of the certified model."""

    def push(**origin):
        graph = graph_identity.graph_sha256(certified_model)
        given = {"run": "run-1", "task": "addition", "graph_sha256": graph} | origin
        return version_folder.push(certified_model, tmp_path / "base", json.dumps(given), given).path

    return push


def test_a_version_as_it_was_pushed_is_blessed(version):
    found = provenance.of(version())
    assert (found.run, found.task.name, found.damage, found.unblessed, found.ignored) == ("run-1", "addition", (), "", ())
    assert found.margin == pytest.approx(5.27803, rel=1e-5)
    assert provenance.of(version(run="")).unblessed.endswith("names no run of a pipeline")


@pytest.mark.parametrize("graph", ["0" * 64, "", None])
def test_a_graph_that_is_not_the_one_of_the_push_is_not_blessed(version, graph):
    found = provenance.of(version(graph_sha256=graph))
    assert found.unblessed == "it is not proven: its graph is not the one that was compared with the cell"
    assert (found.damage, found.margin) == ((), None)
    with pytest.raises(Refusal, match="its graph is not the one that was compared with the cell; --force rolls it out all the same"):
        rollout._check(found, 7, force=False)


def test_foreign_files_are_damage_that_no_force_rolls_out(version):
    folder = version()
    os.mkfifo(folder / "assets.extra" / "fifo")
    (folder / "model.tflite").touch()
    found = provenance.of(folder)
    assert [line.removeprefix(f"{folder}: ") for line in found.damage] == [
        "assets.extra/fifo is a FIFO that no certified model has",
        "model.tflite is a file that no certified model has",
    ]
    with pytest.raises(Refusal, match=r"version 7 is damaged and cannot be served: .*fifo is a FIFO .* \(2 in all\)"):
        rollout._check(found, 7, force=True)


def test_a_manifest_that_is_a_fifo_is_never_opened(version):
    folder = version()
    (folder / version_folder.MANIFEST).unlink()
    os.mkfifo(folder / version_folder.MANIFEST)
    assert provenance.of(folder).damage == (f"{folder}: assets.extra/manifest.json is a FIFO, not a file",)


def test_what_desktops_leave_behind_is_told_and_no_damage(version, capsys):
    folder = version()
    (folder / "variables" / ".DS_Store").touch()
    found = provenance.of(folder)
    assert (found.damage, found.unblessed, found.ignored) == ((), "", ("variables/.DS_Store",))
    rollout._check(found, 7, force=False)
    assert "version 7: variables/.DS_Store ignored\n" in capsys.readouterr().out
