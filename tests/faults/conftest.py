"""The option of the full form."""


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="every fault of every operation, instead of a sample")
