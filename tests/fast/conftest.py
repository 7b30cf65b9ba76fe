"""The certified model of tests/data as a SavedModel, exported once, and the clients."""

import json
import pathlib

import pytest

from tests.fast import certified


@pytest.fixture(params=["blocking", "asyncio"])
def make(request):
    """A function: channel in memory, options -> client; of the client that blocks, and of the one of asyncio."""
    from tests.fast import clients

    return {"blocking": clients.blocking, "asyncio": clients.on_a_loop}[request.param]


@pytest.fixture(scope="session")
def certified_model(tmp_path_factory) -> pathlib.Path:
    """The folder of the SavedModel, with its certificate; not to be written to."""
    from components import export
    from components.gru import GRU

    cell = GRU(certified.weights().units)
    for name, value in certified.arrays(certified.weights()).items():
        getattr(cell, name).assign(value)
    folder = tmp_path_factory.mktemp("certified") / "model"
    export.save(cell, str(folder))
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "certificate.json").write_text(json.dumps(certified.certificate()))
    return folder
