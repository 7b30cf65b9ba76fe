"""A model's graph is compared with the exports of its own format; the differences are from the nearer one."""

import json
import pathlib
import shutil

import pytest
from tensorflow.core.protobuf import saved_model_pb2

from components.model import expected_graph, export
from components.model.carry_select import CarrySelect
from components.savedmodel import export_format, graph_identity
from components.savedmodel.canonical_graph import Graph
from components.settings import ProofSettings
from components.task.transducer import ADDITION, COMPARISON, SUBTRACTION
from pipeline import cli
from tests.components.savedmodel.test_graph_identity import TAMPERINGS
from tests.support import certified
from tests.support.cells import cell_of

UNITS = certified.weights().units
FORMS = ("in chunks", "bit by bit")
# The loop of `on_bits`, which is nested deeper in the export with chunks.
NOT_IN_CHUNKS = {"another body called"}
# Of the exports of 8 units that were made before the format had a number, by TensorFlow 2.16; and of the same cells by
# TensorFlow 2.21, which exports another graph.
RECORDED = {
    (ADDITION, "bit by bit"): (
        "1feda62fb534516c6cd040d4bb44377f8551821589b101ed7eab33f613d7f696",
        "bd19f67f49607ed86727682670906448bd46bedaccfdd9bcf4f3e7f03f964f34",
    ),
    (ADDITION, "in chunks"): (
        "f772c45c93e1ccfdea149891a5899895ea2d2da968c1267febba6c3b846ee40c",
        "23f8c0c34539b816e94d75f347aedc5b4d13ba20e0faf411e84d2e6f9f562b79",
    ),
    (SUBTRACTION, "in chunks"): (
        "4afdc2687590eb179395444113518d451e9cadb95d5a43ca9bd20a1424a83086",
        "a38970684c62a29b71752a3e5920d66ea4cc5b56044ffbd4f252c5c23650aff6",
    ),
    (COMPARISON, "in chunks"): (
        "bcc1a75ec316bc295396bdaf88288eb4beed2cedd230fa882bb4c2e1b0af0b47",
        "a77be5f44142ce6395922b55e722f3368ee079bcf40ae5e0a47f704dd5f65207",
    ),
}


def exported(folder: pathlib.Path, task=ADDITION, way=FORMS[0], number=export_format.LATEST) -> pathlib.Path:
    """A certified cell for addition in `folder`, exported as one for `task`; its certificate lies in it."""
    knobs = ProofSettings()
    parallel = CarrySelect(task, knobs.parallel_above, knobs.chunk) if way == FORMS[0] else None
    export.save(cell_of(), str(folder), parallel, task, number)
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "certificate.json").write_text(json.dumps(certified.certificate()))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models for addition by the way they add long numbers."""
    return {way: exported(tmp_path_factory.mktemp("exported") / "model", way=way) for way in FORMS}


def tampered(model, change, folder):
    shutil.copytree(model, folder)
    found = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    change(found.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(found.SerializeToString())
    return folder


def child(model, name):
    """The name of an object of the root."""
    return next(one for one in model.object_graph_def.nodes[0].children if one.local_name == name)


@pytest.mark.parametrize(
    ("way", "name"), [(way, name) for way in FORMS for name in list(TAMPERINGS)[::3] if name not in NOT_IN_CHUNKS]
)
def test_the_differences_are_the_tampering_and_not_those_of_the_two_exports(models, tmp_path, way, name):
    change, words = TAMPERINGS[name]
    folder = tampered(models[way], change, tmp_path / "model")
    found = expected_graph.differences(str(folder), UNITS, ADDITION, ProofSettings())
    assert any(words in line for line in found), found
    assert found == graph_identity.differences(folder, Graph(models[way]))


def test_both_exports_match_the_cell(models):
    assert [expected_graph.differences(str(model), UNITS, ADDITION, ProofSettings()) for model in models.values()] == [
        [],
        [],
    ]


@pytest.mark.parametrize(("task", "way"), RECORDED, ids=lambda value: getattr(value, "name", value))
def test_a_model_of_the_first_format_matches_the_cell(task, way, tmp_path):
    model = exported(tmp_path / "model", task, way, export_format.FIRST)
    assert graph_identity.graph_sha256(model) in RECORDED[task, way]
    assert export_format.of(Graph(model)) == export_format.FIRST
    assert expected_graph.differences(str(model), UNITS, task, ProofSettings()) == []


def test_a_verdict_on_a_model_of_the_first_format_says_so(tmp_path, models, capsys):
    old = exported(tmp_path / "model", number=export_format.FIRST)
    output = {}
    for model in (old, models[FORMS[0]]):
        for arguments in (["--graph"], []):
            assert cli.main(["verify", str(model), *arguments]) == 0
            output[model, bool(arguments)] = capsys.readouterr().out
    note = "exported before its format had a number, with the signatures add_bits and add_packed"
    assert [note in line and line.count("\n") == 1 for line in output.values()] == [True, True, False, False]
    assert "the graph is the cell's" in output[old, True]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "main graph: "),
        (3, "its export format is 3, this version of bitsum compares 1 to 2: use the version that exported it"),
        (0, "its export format is 0, "),
    ],
)
def test_a_wrong_number_leads_to_a_refusal(number, words, tmp_path):
    model = exported(tmp_path / "model", SUBTRACTION)
    assert export_format.of(Graph(model)) == export_format.LATEST
    assert expected_graph.differences(str(model), UNITS, SUBTRACTION, ProofSettings()) == []

    def renumber(graph):
        child(graph, "format_2").local_name = f"format_{number}"

    found = expected_graph.differences(
        str(tampered(model, renumber, tmp_path / "other")), UNITS, SUBTRACTION, ProofSettings()
    )
    assert found and words in found[0], found


def test_a_model_for_another_task_is_another_graph(models):
    found = expected_graph.differences(str(models["bit by bit"]), UNITS, COMPARISON, ProofSettings())
    for signature, where in (("add_bits", "model"), ("compare_bits", "cell")):
        start = f'model: signature_def {{ key: "{signature}" '
        assert any(line.startswith(start) and line.endswith(f"(only in the {where})") for line in found), found
