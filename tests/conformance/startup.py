"""Section 9_startup: starts with good and bad flags, and SIGTERM during a call."""

import dataclasses
import pathlib
import shutil
import signal
import socket
import time
from collections.abc import Collection, Iterator

from tests.conformance import models, recording, servers, wire
from tests.conformance.outcomes import Seen

SECTION = "9_startup"
_FAILED = "Failed to start server. Error: "
_END_SECONDS = 120.0
# The time to watch servers that wait forever, after another one of the same group is ready.
_WAITING_SECONDS = 2.0
_LABELLED = "model_version_policy { specific { versions: 1 versions: 2 } } version_labels { key: 'canary' value: 2 }"


@dataclasses.dataclass(frozen=True)
class _Start:
    """The flags of a start, and pairs (recorded folder, local folder)."""

    flags: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...] = ()


def run(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """All starts of the section: first those that exit, a few at a time, then those that wait or serve."""
    starts = _starts(made, folder)
    probes = recording.load()[SECTION]
    ending = [name for name in starts if probes[name].record["exit_code"] is not None]
    for group in (ending[:4], ending[4:], [name for name in starts if name not in ending]):
        begun = {name: servers.begin(program, folder / name, *starts[name].flags) for name in group}
        try:
            if group[0] in ending:
                _wait_for_ends(begun.values())
                yield from (_ended(probes[name], server, starts[name]) for name, server in begun.items())
            else:
                yield from _living(begun)
        finally:
            for server in begun.values():
                servers.end(server)
    yield from _port_in_use(program, made, folder)
    yield from _sigterm_during_call(program, made, folder)


def _starts(made: pathlib.Path, folder: pathlib.Path) -> dict[str, _Start]:
    corrupt, empty = folder / "corr", folder / "emptyb"
    with models.appearing(made, 1, corrupt) as version:
        (version / "saved_model.pb").write_bytes(b"no model at all " * 4)
    empty.mkdir()
    shutil.copytree(made, folder / "add")
    bad = folder / "bad.config"
    bad.write_text("model_config_list { foo: 1 }\n")

    def config(name: str, *entries: str) -> str:
        return servers.config_file(folder, *entries, name=name)

    good = servers.entry("m", folder / "add")
    labelled = servers.entry("m", folder / "add", _LABELLED)
    fs = ("/models/fs_DF", str(folder))
    return {
        "start_nonexistent_base": _Start(("--model_name=m", f"--model_base_path={folder}/nope")),
        "start_empty_base": _Start(("--model_name=m", f"--model_base_path={empty}")),
        "start_relative_base": _Start(("--model_name=m", "--model_base_path=store/add")),
        "start_no_args": _Start(()),
        "start_bad_config": _Start((f"--model_config_file={bad}",), (("/models/start_bad_config.log.cfg", str(bad)),)),
        "start_missing_config": _Start((f"--model_config_file={folder}/none.cfg",), (fs,)),
        "start_dup": _Start((config("dup", good, good),)),
        "start_label_unavailable": _Start((config("labels", labelled),)),
        "start_label_allowed": _Start(
            (config("labels", labelled), "--allow_version_labels_for_unavailable_models=true")
        ),
        "start_corrupt_retries0": _Start(
            ("--model_name=m", f"--model_base_path={corrupt}", "--max_num_load_retries=0"), (fs,)
        ),
        "start_corrupt_default": _Start(("--model_name=m", f"--model_base_path={corrupt}")),
        "start_one_good_one_corrupt": _Start(
            (config("two", good, servers.entry("c", corrupt)), "--max_num_load_retries=0"), (fs,)
        ),
        "start_unknown_flag": _Start(("--model_name=m", f"--model_base_path={folder}/add", "--no_such_flag=1")),
    }


def _wait_for_ends(begun: Collection[servers.Server]) -> None:
    """Wait until all servers have exited, or all but one and that one keeps running."""
    servers.until(
        lambda: sum(_exit_code(server) is not None for server in begun) >= len(begun) - (len(begun) > 1), _END_SECONDS
    )
    servers.until(lambda: all(_exit_code(server) is not None for server in begun), _WAITING_SECONDS)


def _ended(probe: recording.Probe, server: servers.Server, start: _Start) -> Seen:
    """The exit code and error line of a server that does not start."""
    expected = next(line for line in probe.record["log"] if line.startswith(_FAILED))
    for recorded, here in start.renamed:
        expected = expected.replace(recorded, here)
    lines = server.log.read_text(errors="replace").splitlines()
    got = next((line for line in lines if line.startswith(_FAILED)), lines[-1] if lines else "")
    return _difference(probe, (probe.record["exit_code"], expected), (_exit_code(server), got))


def _living(begun: dict[str, servers.Server]) -> Iterator[Seen]:
    """Whether the port is open, the states of the versions, and whether the server keeps running."""
    probes = recording.load()[SECTION]
    serving = [name for name in begun if probes[name].record["states"]]
    servers.until(
        lambda: all(_exit_code(begun[name]) is not None or servers.port_open(begun[name].target) for name in serving),
        _END_SECONDS,
    )
    time.sleep(_WAITING_SECONDS)
    for name, server in begun.items():
        open_ = servers.port_open(server.target)
        states = server.states() if open_ else None
        yield _difference(probes[name], (None, probes[name].record["states"]), (_exit_code(server), states))


def _port_in_use(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    probe = recording.load()[SECTION]["start_port_in_use"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        flags = ("--model_name=m", f"--model_base_path={folder}/add")
        server = servers.begin(program, folder / "port_in_use", *flags, port=taken.getsockname()[1])
        try:
            _wait_for_ends([server])
            yield _ended(probe, server, _Start(()))
        finally:
            servers.end(server)


def _sigterm_during_call(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    probe = recording.load()[SECTION]["sigterm_during_call"]
    with servers.running(program, folder / "sigterm", "--model_name=m", f"--model_base_path={folder}/add") as server:
        server.call(wire.PREDICT, models.looping(10))
        call = server.stub.unary_unary(wire.PREDICT).future(models.looping(200_000), timeout=60)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        code = call.code().name
        server.process.wait(60)
        expected = (probe.record["rc"], str(probe.record["result"]).partition(":")[0])
        yield _difference(probe, expected, (server.process.returncode, code))


def _exit_code(server: servers.Server) -> int | None:
    return server.process.poll()


def _difference(probe: recording.Probe, expected: tuple, got: tuple) -> Seen:
    return Seen(probe.section, probe.id, "" if got == expected else f"expected {expected}, got {got}")
