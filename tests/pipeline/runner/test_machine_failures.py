"""`bitsum run` on a failing machine, with a model that kills its server, and with an older model: exit codes, cache,
history."""

import json
import pathlib

import pytest

from components.progress import STAGE_WIDTH
from components.savedmodel import version_folder
from pipeline import cli
from tests.support.fake_server import SERVER, python

# It ends by a signal while it is queried.
_END = "time.sleep(0.5); os.kill(os.getpid(), signal.{})"
_UNANSWERED = """
import json
print(json.dumps({"asked": 5, "right": 0, "wrong": [], "errors": {"UNAVAILABLE": 5}, "first_error": "nobody answers"}))
"""


def _command(program: str, **values) -> str:
    return json.dumps(python(program, **values))


def _line(errors: str) -> str:
    """The text for the user; in this process alone, the text for the log precedes it."""
    return errors.splitlines()[-1]


def _cached(terminal: str) -> set[str]:
    return {line[2 : 2 + STAGE_WIDTH].strip() for line in terminal.splitlines() if line.endswith(" cached")}


@pytest.mark.long
def test_only_a_fault_of_the_model_refuses_it_and_is_recorded(bitsum_run, tmp_path, capfd):
    starts, root = tmp_path / "starts", tmp_path / "var"
    prober = f"infra.probe_command={_command(_UNANSWERED)}"

    def ends_by(name: str) -> tuple[str, str]:
        return f"infra.serve_command={_command(SERVER, starts=str(starts), end=_END.format(name))}", prober

    for so_far in (2, 4):
        code, terminal, errors = bitsum_run(*ends_by("SIGSEGV"))
        assert code == 3 and _line(errors).startswith(
            "bitsum: infra validation refused: the model server ended by SIGSEGV"
        ), errors
        assert len(starts.read_text().splitlines()) == so_far, "the next run starts the server again"
    assert {"train", "prove"} <= _cached(terminal) and "infra-validate" not in _cached(terminal)

    for words, *overrides in (
        ("ended by SIGKILL", *ends_by("SIGKILL")),
        ("program 'no-such-prober' not found", 'infra.probe_command=["no-such-prober"]'),
        ("no version available within 0.1 s", "infra.start_timeout=0.1"),
    ):
        code, _, errors = bitsum_run(*overrides)
        assert code == 1 and words in _line(errors), errors
    assert not (root / "serving").exists()

    assert cli.main(["history", "--json", "--set", f"pipeline.root={root}"]) == 0
    runs = json.loads(capfd.readouterr().out)["runs"]
    assert [run["state"] for run in runs] == ["refused"] * 2 + ["failed at InfraValidator"] * 3
    assert [run["gates"].get("infra validation") for run in runs] == ["REFUSED"] * 2 + [None] * 3

    # With working programs the model passes.
    assert bitsum_run()[0] == 0
    [version] = version_folder.versions(root / "serving" / "bitsum")

    _an_older_model_stays_out(bitsum_run, root / "serving" / "bitsum", version)


def _an_older_model_stays_out(bitsum_run, served: pathlib.Path, first: int) -> None:
    manifest = version_folder.manifest(served / str(first))
    newest = version_folder.push(
        served / str(first), served, "the model of span 5", manifest["origin"] | {"span": 5}
    ).version
    for span in (0, 4):
        code, terminal, errors = bitsum_run(f"data.span={span}")
        assert code == 3 and f"push refused: span {span}" in errors and f"span 5 of version {newest}" in errors
        assert "--allow-older" in _line(errors)
        assert "load libraries" not in terminal
    assert version_folder.versions(served) == [first, newest]
    code, terminal, errors = bitsum_run(options=["--allow-older"])
    assert (code, errors) == (0, "")
    assert {"train", "prove", "infra-validate"} <= _cached(terminal), "only the push has the option"
    assert version_folder.versions(served)[:-1] == [first, newest]
    # It is the newest version now, and the same model needs no option.
    assert bitsum_run()[0] == 0
