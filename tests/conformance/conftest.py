"""The folder of models that all processes of a test run share."""

import pytest


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, request):
    """One folder for all workers of pytest-xdist, so that the models are made once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if hasattr(request.config, "workerinput") else own) / "conformance"
    folder.mkdir(exist_ok=True)
    return folder
