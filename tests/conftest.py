"""What holds for every test, the certified model of tests/data as a SavedModel, and the clients."""

import functools
import json
import pathlib
import signal

import pytest

from tests.support import certified


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """Leave out, of `-m fast`, the files without such tests: importing them takes longer than running the others."""
    if not config.option.markexpr.startswith("fast") or collection_path.suffix != ".py":
        return None
    return "pytest.mark.fast" not in collection_path.read_text() or None


def pytest_configure() -> None:
    # A shell starts what runs in the background with SIGINT ignored, and whatever a test starts then ignores it as
    # well.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["blocking", "asyncio"])
def make(request):
    """A function: channel in memory, options -> client; of the client that blocks, and of the one of asyncio."""
    from tests.support import clients

    return {"blocking": clients.blocking, "asyncio": clients.on_a_loop}[request.param]


@pytest.fixture
def serve(monkeypatch):
    """A function: channel in memory -> channel; the commands ask it."""
    from serving import client

    def use(channel):
        monkeypatch.setattr(client, "AdderClient", functools.partial(client.AdderClient, channel=channel))
        return channel

    return use


@pytest.fixture(scope="session")
def certified_model(tmp_path_factory) -> pathlib.Path:
    """The folder of the SavedModel, with its certificate; not to be written to."""
    from components.model import export
    from tests.support.cells import cell_of

    folder = tmp_path_factory.mktemp("certified") / "model"
    export.save(cell_of(), str(folder))
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "certificate.json").write_text(json.dumps(certified.certificate()))
    return folder
