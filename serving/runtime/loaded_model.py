"""One version of a SavedModel in memory. TensorFlow's own session runs the graph, so that its errors are the real ones.

Only the embedded server imports this module, and only the parts of TensorFlow that a session needs.
"""

import gc
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2, saved_model_pb2
from tensorflow.python.client import pywrap_tf_session, session
from tensorflow.python.framework import errors_impl as errors
from tensorflow.python.framework import ops
from tensorflow.python.saved_model import loader_impl

from components import regular_files
from components.formats import strict_protos
from serving.status import Code, StatusError, unforeseen

# The tag that TensorFlow Serving loads.
_TAGS = ["serve"]
_FILE = "saved_model.pb"
# The limit of protobuf.
_MAX_GRAPH_BYTES = 2**31 - 1
# TensorFlow's Python layer prefixes the text of a failed operation with this.
_PYTHON_HEADING = "Graph execution error:\n\n"


class LoadedModel:
    """The SavedModel in `path`, ready to run.

    Raises:
        StatusError: `path` has no SavedModel, or it does not load.
    """

    def __init__(self, path: pathlib.Path):
        _check_file(path)
        self._graph = ops.Graph()
        self._session = session.Session(graph=self._graph)
        try:
            with self._graph.as_default():
                meta_graph = loader_impl.SavedModelLoader(str(path)).load(self._session, _TAGS)
        except errors.OpError as error:
            self.close()
            raise StatusError(error.error_code, error.message.removeprefix(_PYTHON_HEADING)) from error
        except Exception as error:
            # A damaged graph can fail anywhere in the loader.
            self.close()
            raise unforeseen(error, Code.INVALID_ARGUMENT) from error
        self._session._extend_graph()
        self._graph.finalize()
        self.signatures = dict(meta_graph.signature_def)
        self._outputs: dict[str, pywrap_tf_session.TF_Output] = {}

    def run(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout: float | None = None
    ) -> list[np.ndarray]:
        """The values of tensors `fetches` for the values of tensors `feeds`, both by name.

        Bypasses `Session.run`, which compares shapes with the placeholders and has its own error texts; the real
        server leaves that to the graph.

        Args:
            timeout: seconds after which TensorFlow stops the run; None for no limit.

        Raises:
            StatusError: with the code and text of the failed operation.
        """
        session = self._session
        if session is None:
            raise _closed()
        options = None
        if timeout is not None:
            serialized = config_pb2.RunOptions(timeout_in_ms=max(1, int(timeout * 1000))).SerializeToString()
            options = pywrap_tf_session.TF_NewBufferFromString(serialized)
        try:
            feed = {self._output(name): value for name, value in feeds.items()}
            return pywrap_tf_session.TF_SessionRun_wrapper(
                session._session, options, feed, [self._output(name) for name in fetches], [], None
            )
        except errors.OpError as error:
            raise StatusError(error.error_code, error.message) from error
        except UnicodeDecodeError as error:
            # An operation quotes bytes of the request that are not UTF-8. That loses the code, but the argument is at
            # fault.
            raise StatusError(Code.INVALID_ARGUMENT, error.object.decode(errors="replace")) from error
        finally:
            if options is not None:
                pywrap_tf_session.TF_DeleteBuffer(options)

    def close(self) -> None:
        """Free the model; runs in progress are cancelled."""
        session, self._session, self._graph = self._session, None, None
        self._outputs = {}
        if session is not None:
            session.close()
        del session
        # A graph is full of cycles, and too large to wait for the next automatic collection.
        gc.collect()

    def _output(self, name: str) -> "pywrap_tf_session.TF_Output":
        if name not in self._outputs:
            graph = self._graph
            if graph is None:
                raise _closed()
            operation, _, index = name.partition(":")
            output = pywrap_tf_session.TF_Output()
            try:
                output.oper = graph.get_operation_by_name(operation)._c_op
            except KeyError as error:
                raise StatusError(Code.NOT_FOUND, f"the graph has no operation {operation}") from error
            output.index = int(index or 0)
            self._outputs[name] = output
        return self._outputs[name]


def _closed() -> StatusError:
    return StatusError(Code.CANCELLED, "Session has been closed.")


def _check_file(path: pathlib.Path) -> None:
    """Raises errors with the real server's texts where the loader has different ones."""
    file = path / _FILE
    try:
        if not file.is_file():
            raise StatusError(
                Code.NOT_FOUND,
                "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
                f"`{_FILE}`)\nSpecified file path: {path}",
            )
        strict_protos.parse(saved_model_pb2.SavedModel, regular_files.read(file, _MAX_GRAPH_BYTES))
    except OSError as error:
        raise StatusError(Code.UNAVAILABLE, f"cannot read {file}: {error.strerror}") from error
    except DecodeError as error:
        raise StatusError(Code.DATA_LOSS, f"Can't parse {file} as binary proto") from error
