"""Folders of versions that take nothing to load, and models that are nothing but a record of what was done to them."""

import threading
import time

from serving.status import Code, StatusError


class Shelf:
    """A folder of versions; loading waits for `gates[version]` where there is one, and fails where a file `bad`
    lies."""

    def __init__(self, path):
        self.path = path
        self.gates = {}
        self.closed = []
        self.loads = []

    def put(self, *versions, bad=False):
        for version in versions:
            (self.path / str(version)).mkdir(parents=True, exist_ok=True)
            if bad:
                (self.path / str(version) / "bad").touch()

    def hold(self, version):
        self.gates[version] = threading.Event()
        return self.gates[version]

    def load(self, path):
        version = int(path.name)
        self.loads.append(version)
        if version in self.gates:
            assert self.gates[version].wait(10)
        if (path / "bad").exists():
            raise StatusError(Code.DATA_LOSS, f"{version} is bad")
        return Loaded(path, self.closed)


class Loaded:
    """The model of a folder."""

    def __init__(self, path, closed):
        self.path = path
        self.version = int(path.name)
        self._closed = closed

    def close(self):
        self._closed.append(self.version)


def eventually(value, expected, step=lambda: None):
    """Do `step` until `value()` is `expected`."""
    end = time.monotonic() + 10
    while value() != expected and time.monotonic() < end:
        step()
        time.sleep(0.005)
    assert value() == expected
