"""Generated protocol buffer modules of TensorFlow, without importing TensorFlow, whose `__init__` takes seconds.

The modules lie inside the `tensorflow` package. While `load` imports them, an object that has only the path of the
installed package stands in for `tensorflow`; afterwards it is gone, so that a later `import tensorflow` gives the real
package, which then shares the generated modules. Where TensorFlow is imported already, nothing stands in for anything.
`load_from` does the same with another package, such as TensorFlow Model Analysis.
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
    """The modules by the names that the caller gives them: load(tensor="tensorflow.core.framework.tensor_pb2").tensor.

    Safe to call from several threads, and while another one imports TensorFlow.

    Raises:
        BitsumError: a package is not installed.
    """
    return load_from(_TENSORFLOW, **modules)


def load_from(package: str, **modules: str) -> types.SimpleNamespace:
    """As `load`, where it is `package` whose `__init__` is not to run.

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
        # Another thread may be half way through it: this waits.
        importlib.import_module(package)
        yield
        return
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(name=package)
    stand_in = _StandIn(package)
    stand_in.__path__ = spec.submodule_search_locations
    sys.modules[package] = stand_in
    try:
        yield
    finally:
        del sys.modules[package]


class _StandIn(types.ModuleType):
    """Only a path, for the import system. Another thread that imports TensorFlow just now and catches this object is
    passed on."""

    def __init__(self, name: str):
        super().__init__(name)
        self._loader_thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or threading.get_ident() == self._loader_thread:
            raise AttributeError(name)
        with _LOCK:
            return getattr(importlib.import_module(self.__name__), name)
