"""The folder of models shared by all processes of a test run."""

import pytest


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, request):
    """One folder for all workers of pytest-xdist, so that they make the models once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if hasattr(request.config, "workerinput") else own) / "conformance"
    folder.mkdir(exist_ok=True)
    return folder
