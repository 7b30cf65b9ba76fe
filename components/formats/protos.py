"""Imports generated protocol buffer modules of TensorFlow without TensorFlow, whose `__init__` takes seconds.

The modules lie inside the `tensorflow` package. While `load` imports them, an object that has only the path of the
installed package stands in for `tensorflow`. Afterwards it is removed, so that a later `import tensorflow` imports the
real package, which then shares the generated modules. If TensorFlow is already imported, `load` uses it. `load_from`
does the same for another package, such as TensorFlow Model Analysis.
"""

import contextlib
import importlib
import importlib.util
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

from components.errors import BitsumError

_TENSORFLOW = "tensorflow"
_LOCK = threading.Lock()


def load(**modules: str) -> types.SimpleNamespace:
    """The modules under the caller's names: load(tensor="tensorflow.core.framework.tensor_pb2").tensor.

    Several threads may call it, even while another one imports TensorFlow.

    Raises:
        BitsumError: a package is not installed.
    """
    return load_from(_TENSORFLOW, **modules)


def load_from(package: str, **modules: str) -> types.SimpleNamespace:
    """As `load`, without running the `__init__` of `package`.

    Raises:
        BitsumError: a package is not installed.
    """
    try:
        with _LOCK, _without_init(package):
            return types.SimpleNamespace(**{short: importlib.import_module(name) for short, name in modules.items()})
    except ModuleNotFoundError as error:
        raise BitsumError(
            f"{error.name} is not installed: bitsum needs tensorflow, tensorflow-serving-api and grpcio"
        ) from error


@contextlib.contextmanager
def _without_init(package: str) -> Iterator[None]:
    if package in sys.modules:
        # Wait for a thread that may be halfway through the import.
        importlib.import_module(package)
        yield
        return
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(name=package)
    stand_in = _StandIn(package)
    stand_in.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[package] = stand_in
    try:
        yield
    finally:
        del sys.modules[package]


class _StandIn(types.ModuleType):
    """A path for the import system. Another thread that imports the package meanwhile and gets this object is served by
    the real package."""

    def __init__(self, name: str):
        super().__init__(name)
        self._loader_thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or threading.get_ident() == self._loader_thread:
            raise AttributeError(name)
        with _LOCK:
            return getattr(importlib.import_module(self.__name__), name)
