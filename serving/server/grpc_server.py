"""The gRPC server of the embedded model server, in this process.

Offers TensorFlow Serving's API (PredictionService, ModelService) and grpc.health.v1. Imports TensorFlow.
"""

import pathlib
import threading
from concurrent import futures

import grpc

from components import atomic
from components.errors import BitsumError
from components.proof import certificate
from components.savedmodel import loaded_weights, model_files, version_folder
from serving.runtime.batching import BatchedModel
from serving.runtime.batching_parameters import BatchingParameters
from serving.runtime.loaded_model import LoadedModel
from serving.runtime.warmup import replay
from serving.server.handlers import Handlers
from serving.server.health import Health
from serving.server.options import address
from serving.status import Code, StatusError
from serving.versions.loader import LOGGER

# The service names of health checks; the empty name is the whole server.
_HEALTH_NAMES = ("", "PredictionService", "ModelService")
# Threads for health checks, and for calls that never send their request: each occupies one while it is open.
_SPARE_CALLS = 512


def load(
    path: pathlib.Path,
    warm_up: bool = True,
    iterations: int = 1,
    batching: BatchingParameters | None = None,
    stop: threading.Event | None = None,
) -> LoadedModel | BatchedModel:
    """The version in `path`, warmed up by default until `stop` is set, and batched if `batching` is given.

    Raises:
        StatusError: files differ from the manifest of the push; a certified version has foreign files, or weights that
        TensorFlow reads differently from the checker; the load or a warmup request fails; `stop` is set meanwhile.
    """
    _check_files(path)
    model = LoadedModel(path)
    try:
        if warm_up:
            replay(model, path, iterations, stop)
    except StatusError:
        model.close()
        raise
    return BatchedModel(model, batching) if batching else model


def _check_files(path: pathlib.Path) -> None:
    is_certified, is_pushed = (not atomic.is_gone(path / name) for name in (certificate.FILE, version_folder.MANIFEST))
    if not is_certified and not is_pushed:
        return
    try:
        if is_certified:
            _refuse(model_files.foreign(path), "such files in all): remove them, or push the model again")
        if is_pushed:
            _refuse(
                [f"{problem} since it was pushed" for problem in version_folder.problems(path)],
                "differences in all): push the model again",
            )
        if is_certified:
            _refuse(loaded_weights.differences(path), "differences in all): it differs from the certified model")
        for name in model_files.litter(path):
            LOGGER.warning("%s is ignored", path / name)
    except BitsumError as error:
        # A file that this user may not read says nothing about the model.
        code = Code.PERMISSION_DENIED if isinstance(error.__cause__, PermissionError) else Code.DATA_LOSS
        raise StatusError(code, str(error)) from error


def _refuse(problems: list[str], remedy: str) -> None:
    if problems:
        raise StatusError(Code.DATA_LOSS, f"{problems[0]} ({len(problems)} {remedy}")


class Server:
    """A gRPC server that listens from its construction and answers after `start`.

    Args:
        handlers: the methods.
        max_concurrent_calls: calls that the handlers process concurrently.
        max_request_bytes: larger requests are refused with RESOURCE_EXHAUSTED.
        credentials: for TLS; None listens without TLS.
        arguments: further gRPC channel arguments.

    Raises:
        BitsumError: the server cannot listen on the address.
    """

    def __init__(
        self,
        handlers: Handlers,
        host: str,
        port: int,
        max_concurrent_calls: int,
        max_request_bytes: int,
        credentials: grpc.ServerCredentials | None = None,
        arguments: tuple[tuple[str, int | str], ...] = (),
    ):
        # Includes the calls that the handlers refuse.
        max_threads = 2 * max_concurrent_calls + _SPARE_CALLS
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_threads, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=max_threads,
            options=[
                # Two servers on one port would share the calls between them.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_request_bytes),
                ("grpc.max_send_message_length", -1),
                *arguments,
            ],
        )
        self._health = Health(_HEALTH_NAMES)
        self._server.add_generic_rpc_handlers((self._health.handler(), handlers))
        target = address(host, port)
        try:
            self.port = (
                self._server.add_secure_port(target, credentials)
                if credentials
                else self._server.add_insecure_port(target)
            )
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise BitsumError(f"cannot listen on {target}: is the port in use? Give another --port; 0 takes a free one")

    def start(self) -> None:
        """Answer calls."""
        self._server.start()

    def stop(self, grace: float) -> bool:
        """Refuse new calls and wait up to `grace` seconds for those in progress; true if all of them finished."""
        self._health.stop()
        return self._server.stop(grace).wait(grace)
