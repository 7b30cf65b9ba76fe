"""The provenance of a version: the pushed files with certificate and graph, and no others."""

import json
import os
import shutil

import pytest

from components.errors import Refusal
from components.proof import certificate
from components.savedmodel import graph_identity, version_folder
from serving.commands import rollout
from serving.rollout import provenance

pytestmark = pytest.mark.fast


@pytest.fixture
def version(certified_model, tmp_path):
    """version(origin) -> the folder of a pushed version of the certified model."""

    def push(**origin):
        graph = graph_identity.graph_sha256(certified_model)
        given = {"run": "run-1", "task": "addition", "graph_sha256": graph} | origin
        return version_folder.push(certified_model, tmp_path / "base", json.dumps(given), given).path

    return push


def test_a_version_as_it_was_pushed_is_blessed(version):
    origin = provenance.of(version())
    assert (origin.run, origin.task.name, origin.damage, origin.unblessed, origin.ignored) == (
        "run-1",
        "addition",
        (),
        None,
        (),
    )
    assert origin.margin == pytest.approx(5.27803, rel=1e-5)
    assert provenance.of(version(run="")).unblessed.endswith("names no run of a pipeline")


@pytest.mark.parametrize("graph", ["0" * 64, "", None])
def test_another_graph_than_the_pushed_one_is_not_blessed(version, graph):
    origin = provenance.of(version(graph_sha256=graph))
    assert origin.unblessed == "it is not proven: its graph is not the one that was compared with the cell"
    assert (origin.damage, origin.margin) == ((), None)
    with pytest.raises(
        Refusal, match="its graph is not the one that was compared with the cell; --force rolls it out anyway"
    ):
        rollout.check_candidate(origin, 7, force=False)


def test_a_version_without_its_certificate_is_not_proven(certified_model, tmp_path):
    model = shutil.copytree(certified_model, tmp_path / "model")
    (model / certificate.FILE).unlink()
    pushed = version_folder.push(model, tmp_path / "base", "it", {"run": "run-1", "task": "addition"}).path
    origin = provenance.of(pushed)
    assert (origin.unblessed, origin.margin) == (
        f"it is not proven: the certificate {pushed / certificate.FILE} is missing",
        None,
    )


def test_foreign_files_are_damage_even_with_force(version):
    folder = version()
    os.mkfifo(folder / "assets.extra" / "fifo")
    (folder / "model.tflite").touch()
    origin = provenance.of(folder)
    assert [line.removeprefix(f"{folder}: ") for line in origin.damage] == [
        "assets.extra/fifo is a FIFO that no certified model has",
        "model.tflite is a file that no certified model has",
    ]
    with pytest.raises(Refusal, match=r"version 7 is damaged and cannot be served: .*fifo is a FIFO .* \(2 in all\)"):
        rollout.check_candidate(origin, 7, force=True)


def test_a_manifest_that_is_a_fifo_is_never_opened(version):
    folder = version()
    (folder / version_folder.MANIFEST).unlink()
    os.mkfifo(folder / version_folder.MANIFEST)
    assert provenance.of(folder).damage == (f"{folder}: assets.extra/manifest.json is a FIFO, not a file",)


def test_files_that_desktops_leave_behind_are_listed_but_not_damage(version):
    folder = version()
    (folder / "variables" / ".DS_Store").touch()
    origin = provenance.of(folder)
    assert (origin.damage, origin.unblessed, origin.ignored) == ((), None, ("variables/.DS_Store",))
    rollout.check_candidate(origin, 7, force=False)
    lines = rollout.candidate_lines(7, origin.run, origin.task.name, origin.unblessed, origin.ignored)
    assert lines[1:] == ["version 7: variables/.DS_Store ignored"]
