"""A file or folder that belongs to another user is reported as unreadable, never as missing or damaged, by every
command that reads pushed versions and by the server."""

import pytest

from components.proof import certificate
from components.savedmodel import graph_identity, version_folder
from pipeline import cli
from serving.status import Code, StatusError
from tests.support.unprivileged import closed

pytestmark = pytest.mark.fast

CONFIG = """model_config_list {{ config {{ name: "bitsum" base_path: "{0}" model_platform: "tensorflow"
  model_version_policy {{ specific {{ versions: {1} versions: {2} }} }}
  version_labels {{ key: "stable" value: {1} }} version_labels {{ key: "previous" value: {2} }} }} }}"""
ADVICE = ": Permission denied; run this as a user who may read it, or grant that: chmod -R a+rX"
FOLDERS, FILES = ("..", ".", "assets.extra"), (str(version_folder.MANIFEST),)
CONTENT = (*FOLDERS, *FILES, "variables", "saved_model.pb", str(certificate.FILE))


@pytest.fixture
def newest(certified_model, tmp_path):
    """The folder of the newer of two pushed versions, of which the other is stable."""
    given = {"run": "run-1", "task": "addition", "graph_sha256": graph_identity.graph_sha256(certified_model)}
    base = tmp_path / "served"
    one, two = (version_folder.push(certified_model, base, identity, given) for identity in ("one", "two"))
    (tmp_path / "models.config").write_text(CONFIG.format(base, one.version, two.version))
    return two.path


def options(command, folder):
    """The arguments of a command that reads the version in `folder`."""
    here = folder.parent.parent
    knobs = ["--set", f"pipeline.root={here}/root", "--set", f"pipeline.push_to={folder.parent}"]
    return {
        "verify": ["verify", folder],
        "probe": ["probe", "127.0.0.1:1", "--count=1", "-q", "--certificate", folder],
        "rollout": ["rollout", "--plan", "--config_file", here / "models.config", "--server=127.0.0.1:1"],
        "rollback": ["rollback", "--config_file", here / "models.config", "--server=127.0.0.1:1"],
        "node": ["node", "check", "--run-id=x", *knobs],
        "gc": ["gc", *knobs],
    }[command]


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("verify", ("..", ".", "assets.extra", "variables", "saved_model.pb", certificate.FILE)),
        ("probe", ("..", ".", "assets.extra", "variables", certificate.FILE)),
        ("rollout", CONTENT),
        ("rollback", CONTENT[1:]),
        ("node", (*FOLDERS, *FILES)),
        ("gc", ("..",)),
    ],
)
def test_a_command_says_that_it_cannot_read_it(command, names, newest, capfd):
    for name in names:
        place = newest / name
        for mode in (0o000, 0o444) if place.is_dir() else (0o000,):
            with closed(place, mode):
                code = cli.main([*map(str, options(command, newest))])
            error = capfd.readouterr().err.splitlines()
            # `bitsum node` writes a traceback to its log, which capfd takes for standard error.
            error = error[-1:] if command == "node" else error
            assert (code, len(error)) == (1, 1), (name, error)
            assert error[0].startswith("bitsum: cannot read ") and str(newest.parent) in error[0], error
            assert error[0].endswith(ADVICE)


@pytest.mark.parametrize("name", CONTENT[1:])
def test_the_server_gives_no_verdict_on_the_version(name, newest):
    from serving.server import grpc_server

    with closed(newest / name), pytest.raises(StatusError, match=r"cannot read .*Permission denied") as caught:
        grpc_server.load(newest)
    assert caught.value.code == Code.PERMISSION_DENIED


def test_an_unreadable_base_path_is_one_line_before_the_server_starts(newest, capfd):
    for mode in (0o000, 0o111):
        with closed(newest.parent, mode):
            assert cli.main(["serve", f"--model_base_path={newest.parent}", "--port=0"]) == 1
        [line] = capfd.readouterr().err.splitlines()
        assert line.startswith(f"bitsum: cannot read --model_base_path {newest.parent}: Permission denied; run this")
