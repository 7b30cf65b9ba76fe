"""With --json, commands print one document with the keys and types of docs/json.md, also when they fail."""

import dataclasses
import datetime
import json
import math

import pytest

from components import results
from pipeline import cli
from tests.support import json_tables

pytestmark = pytest.mark.fast

DEAD = "127.0.0.1:1"


@pytest.fixture
def run_json(capsys):
    """A function: arguments -> (exit code, document); it checks that standard output holds nothing else."""

    def run(*arguments):
        code = cli.main([*map(str, arguments), "--json"])
        out = capsys.readouterr().out
        assert out.count("\n") == 1 and out.isascii()
        return code, json.loads(out)

    return run


def test_verify(run_json, certified_model):
    code, document = run_json("verify", certified_model)
    assert code == 0 and document["proven"]
    json_tables.check("bitsum verify", document)


def test_verify_of_a_refused_folder(run_json, certified_model, tmp_path):
    (tmp_path / "foreign.txt").touch()
    code, document = run_json("verify", tmp_path)
    assert code == 3 and document["foreign_files"] and document["units"] is None
    json_tables.check("bitsum verify", document)


def test_status(run_json, certified_model, tmp_path):
    (tmp_path / "7").symlink_to(certified_model)
    code, document = run_json("status", "--set", f"pipeline.push_to={tmp_path}", "--server", DEAD)
    assert [version["version"] for version in document["pushed"]] == [7]
    assert (code, document["server"]["target"]) == (1, DEAD) and document["server"]["error"]
    json_tables.check("bitsum status", document)


def test_probe_of_two_dead_servers(run_json):
    code, document = run_json("probe", DEAD, "localhost:1", "--count=1")
    assert code == 1 and document["targets"].keys() == {DEAD, "localhost:1"}
    json_tables.check("bitsum probe", document)


@pytest.mark.parametrize(
    "code, arguments",
    [
        (1, ["verify", "/no/such/folder"]),
        (1, ["history", "--set", "pipeline.root=/no/such/folder"]),
        (1, ["lineage", "--set", "pipeline.root=/no/such/folder"]),
        (1, ["gc", "--set", "pipeline.root=/no/such/folder"]),
        (1, ["qualify", DEAD, "--deadline=0.1"]),
        (1, ["rollout", "--plan", "--config_file=/no/such/file"]),
        (2, ["status", "--set", "train.stepz=3"]),
        (2, ["probe"]),
        (2, ["rollout"]),
        (2, ["verfy"]),
    ],
)
def test_errors_are_documents(code, arguments, capsys):
    assert cli.main([*arguments, "--json"]) == code
    output = capsys.readouterr()
    document = json.loads(output.out)
    json_tables.check("Errors", document)
    assert document["exit_code"] == code and output.err == f"bitsum: {document['error']}\n"


def test_every_command_with_json_has_a_table():
    commands = {title.removeprefix("bitsum ") for title in json_tables.tables()} - {"Errors"}
    assert commands == {"verify", "status", "probe", "qualify", "history", "lineage", "gc", "rollout"}


@pytest.mark.parametrize(
    "change",
    [
        lambda report: report.pop("reason"),
        lambda report: report.update(another=1),
        lambda report: report.update(evaluations="20"),
        lambda report: report.update(foreign_files=[1]),
    ],
)
def test_undocumented_output_is_found(run_json, certified_model, change):
    _, document = run_json("verify", certified_model)
    change(document)
    with pytest.raises(AssertionError):
        json_tables.check("bitsum verify", document)


def test_times_numbers_and_foreign_text():
    @dataclasses.dataclass
    class Result:
        at: datetime.datetime
        worst: float
        name: str

    east = datetime.timezone(datetime.timedelta(hours=2))
    text = results.to_json(Result(datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, east), math.inf, "\x1b\u202e\udcff"))
    assert text.isascii()
    assert json.loads(text) == {"at": "2026-01-02T01:04:05.678Z", "worst": None, "name": "\x1b\u202e\udcff"}
