"""`bitsum warmup`: from the request log of a server to a version that servers load with these requests."""

import hashlib
import json
import pathlib
import shutil
import signal

import pytest

from components.formats import tfrecords
from components.savedmodel import model_files, version_folder
from pipeline import cli
from serving.client import AdderClient
from serving.rollout import provenance
from serving.runtime import warmup
from serving.server import grpc_server, request_log
from tests.conformance import models as recorded
from tests.serving.conftest import bitsum, serving
from tests.support import certified_model

PAIRS = [(13, 29), (2**70 - 1, 1), (0, 0)]


def requests_of(version):
    return list(tfrecords.read(version / model_files.WARMUP_REQUESTS))


def stopped(server):
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A pushed version, and the log of a server that answered PAIRS."""
    folder = tmp_path_factory.mktemp("warmup")
    base = folder / "bitsum"
    certified_model.push(base)
    with serving(base, "--server=embedded", f"--request_log_dir={folder / 'log'}", "--request_log_rate=1") as server:
        with AdderClient(server.target) as client:
            assert [client.add(*pair) for pair in PAIRS] == [a + b for a, b in PAIRS]
        stopped(server)
    return base, folder / "log" / "bitsum"


@pytest.fixture
def base(pushed, tmp_path):
    return shutil.copytree(pushed[0], tmp_path / "bitsum", symlinks=True)


@pytest.fixture
def log(pushed):
    return pushed[1]


@pytest.fixture
def warm(base, capsys):
    """warm(log, arguments) -> (exit code, output, errors) of `bitsum warmup`."""

    def run(log, *arguments):
        code = cli.main(["warmup", str(log), "--model_base_path", str(base), *arguments])
        return code, *capsys.readouterr()

    return run


def newest(base):
    return base / str(max(version_folder.versions(base)))


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_logged_requests_warm_up_a_version_that_survives_restarts(base, log, monkeypatch):
    old = newest(base)
    before = contents(old)
    code, out, err = bitsum("warmup", log, "--model_base_path", base)
    new = newest(base)
    assert (code, err) == (0, "") and new != old and contents(old) == before
    assert out == f"pushed {new}: version {old.name} with 3 logged requests, 3 warmup requests in all\n"

    for _ in range(2):
        with serving(base, "--server=embedded", "--ready_timeout=60") as server:
            assert server.ready.version == int(new.name)
            with AdderClient(server.target) as client:
                assert client.add(13, 29) == 42
            stopped(server)
    replayed = []
    monkeypatch.setattr(warmup, "predict", lambda model, request, timeout: replayed.append(request))
    grpc_server.load(new).close()
    assert replayed == list(request_log.read(log))

    code, out, _ = bitsum("verify", new, "--json")
    assert code == 0 and json.loads(out)["proven"]
    found = provenance.of(new)
    assert found.unblessed is None and found.margin == provenance.of(old).margin
    origin = version_folder.manifest(new)["origin"]
    assert origin == version_folder.manifest(old)["origin"] | {"copy_of": int(old.name), "logged_requests": 3}
    changed = {str(model_files.WARMUP_REQUESTS), str(version_folder.MANIFEST)}
    assert {name: sha for name, sha in contents(new).items() if name not in changed} == {
        name: sha for name, sha in before.items() if name not in changed
    }


def test_later_requests_replace_earlier_ones_and_the_model_is_the_same_for_the_pusher(base, log, warm):
    assert warm(log, "--count=2")[0] == 0
    once = newest(base)
    assert warm(log)[0] == 0
    twice = newest(base)
    assert requests_of(twice)[1:] == requests_of(once) and len(requests_of(twice)) == 3
    identity = version_folder.manifest(twice)["identity"]
    again = version_folder.push(once, base, identity, {})
    assert not again.is_new and again.path == twice


@pytest.mark.parametrize("limit", ["--count=0", "--count=x", "--count=1001", f"--count={2**64}"])
def test_an_impossible_count_is_refused(log, warm, limit):
    assert warm(log, limit)[0] == 2


def test_an_empty_path_is_not_the_current_folder(base, log, warm, monkeypatch):
    monkeypatch.chdir(log)
    assert warm("")[0] == 2
    monkeypatch.chdir(base)
    assert warm(log, "--model_base_path=")[0] == 2


@pytest.mark.parametrize("option", ["tls_ca", "tls_cert", "tls_key", "tls_server_name", "model_name", "requests"])
def test_other_options_refuse_an_empty_text_too(option, capsys):
    assert cli.main(["rollout" if option == "requests" else "add", f"--{option}="]) == 2
    assert capsys.readouterr().err.endswith(f"--{option}: it is empty\n")


def test_a_full_version_names_what_fits(base, log, warm, monkeypatch):
    monkeypatch.setattr(model_files, "MAX_WARMUP_REQUESTS", 4)
    assert warm(log, "--count=3")[0] == 0
    manifest = newest(base) / version_folder.MANIFEST
    text = manifest.read_text()
    # As if the pipeline had written three of them.
    assert text.count('"logged_requests": 3') == 1
    manifest.write_text(text.replace('"logged_requests": 3', '"logged_requests": 0'))
    code, _, err = warm(log, "--count=3")
    assert code == 2 and err.endswith("are more than 4: give --count=1\n")
    monkeypatch.setattr(model_files, "MAX_WARMUP_REQUESTS", 3)
    code, _, err = warm(log, "--count=1")
    assert code == 2 and err.endswith("are more than 3: name an earlier version (--version)\n")


def _changed(base, _):
    (newest(base) / "variables" / "variables.index").write_bytes(b"changed")


def _no_manifest(base, _):
    (newest(base) / version_folder.MANIFEST).unlink()


def _unproven(base, _):
    manifest = version_folder.manifest(newest(base))
    manifest["origin"]["graph_sha256"] = "0"
    (newest(base) / version_folder.MANIFEST).write_text(json.dumps(manifest))


def _later_span(base, _):
    file = newest(base) / version_folder.MANIFEST
    manifest = json.loads(file.read_text())
    later = base / "9999999999"
    shutil.copytree(newest(base), later)
    manifest["origin"]["span"], manifest["identity"] = 7, "another"
    (later / version_folder.MANIFEST).write_text(json.dumps(manifest))


def _foreign_request(base, log):
    recorded_request = recorded.log_of(recorded.adding())
    (log / "requests-9-9.tfrecords").write_bytes(tfrecords.framed(recorded_request))


def _no_requests(base, log):
    shutil.rmtree(log)
    log.mkdir()


@pytest.mark.parametrize(
    ("change", "arguments", "code", "words"),
    [
        (_changed, [], 3, "variables.index was changed"),
        (_no_manifest, [], 3, "has no manifest of a push"),
        (_unproven, [], 3, "its graph is not the one that was compared"),
        (_later_span, ["--version={version}"], 3, "is earlier than span 7"),
        (_foreign_request, [], 1, "which may be those of another model: INVALID_ARGUMENT: "),
        (_no_requests, [], 1, "has no requests: nothing was pushed"),
        (lambda base, log: shutil.rmtree(log), [], 1, "no request log at"),
        (lambda base, log: None, ["--version=5"], 1, "has no version 5: nothing was pushed"),
        (lambda base, log: shutil.rmtree(base), [], 1, "has no versions: nothing was pushed"),
    ],
)
def test_what_cannot_be_served_is_not_pushed(base, log, warm, tmp_path, change, arguments, code, words):
    copy = shutil.copytree(log, tmp_path / "log")
    version = newest(base).name
    change(base, copy)
    before = contents(base) if base.exists() else {}
    arguments = [argument.format(version=version) for argument in arguments]
    done, out, err = warm(copy, *arguments)
    assert (done, out, err.count("\n")) == (code, "", 1) and words in err, err
    assert (contents(base) if base.exists() else {}) == before
    assert not list(pathlib.Path(tmp_path).glob("*writing*"))


def test_a_signature_is_left_out_and_named(base, log, warm):
    version = newest(base)
    (version / model_files.SIGNATURE).write_text("{}")
    manifest = version_folder.manifest(version)
    manifest["files"][str(model_files.SIGNATURE)] = hashlib.sha256(b"{}").hexdigest()
    (version / version_folder.MANIFEST).write_text(json.dumps(manifest))
    code, _, err = warm(log)
    assert code == 0 and err.startswith(f"note: the signature of version {version.name} does not cover the requests")
    assert not (newest(base) / model_files.SIGNATURE).exists()
