"""The embedded model server: a gRPC server around the versions of its models, in this process.

Speaks TensorFlow Serving's API (PredictionService, ModelService) and grpc.health.v1. Imports TensorFlow.
"""

import os
import pathlib
from concurrent import futures

import grpc

from components.errors import BitsumError
from components.proof import certificate
from components.savedmodel import loaded_weights, model_files, version_folder
from serving.runtime.batching import BatchedModel
from serving.runtime.batching_parameters import BatchingParameters
from serving.runtime.loaded_model import LoadedModel
from serving.runtime.warmup import replay
from serving.server.handlers import Handlers
from serving.server.health import Health
from serving.status import Code, StatusError
from serving.versions.loader import LOGGER

# Names that a health check may ask for; the empty one stands for the whole server.
_HEALTH_NAMES = ("", "PredictionService", "ModelService")
# Health checks, and the calls that were begun and never asked anything: each of them takes a thread while it is open.
_SPARE_CALLS = 512


def load(
    path: pathlib.Path, warm_up: bool = True, iterations: int = 1, batching: BatchingParameters | None = None
) -> LoadedModel | BatchedModel:
    """The version in `path`, warmed up unless told otherwise; its requests are batched where there are parameters.

    Raises:
        StatusError: its files are not those of the push that left a manifest, it has a certificate and files that
        nothing certified
            has, or weights that TensorFlow reads otherwise than the checker; it cannot be loaded, or a warmup request
            fails.
    """
    _check_files(path)
    model = LoadedModel(path)
    try:
        if warm_up:
            replay(model, path, iterations)
    except StatusError:
        model.close()
        raise
    return BatchedModel(model, batching) if batching else model


def _check_files(path: pathlib.Path) -> None:
    is_certified, is_pushed = os.path.lexists(path / certificate.FILE), (path / version_folder.MANIFEST).exists()
    if not is_certified and not is_pushed:
        return
    try:
        if is_certified:
            _refuse(model_files.foreign(path), "such files in all): remove them, or push it again")
        if is_pushed:
            _refuse(
                [f"{problem} since it was pushed" for problem in version_folder.problems(path)],
                "differences in all): push it again",
            )
        if is_certified:
            _refuse(loaded_weights.differences(path), "differences in all): it is not what was certified")
        for name in model_files.litter(path):
            LOGGER.warning("%s is ignored", path / name)
    except BitsumError as error:
        raise StatusError(Code.DATA_LOSS, str(error)) from error


def _refuse(problems: list[str], rest: str) -> None:
    if problems:
        raise StatusError(Code.DATA_LOSS, f"{problems[0]} ({len(problems)} {rest}")


class Server:
    """A gRPC server, listening once it is made, that answers once it is started.

    Args:
        handlers: the methods.
        at_once: calls that the handlers work on at the same time.
        max_request_bytes: larger requests are refused with RESOURCE_EXHAUSTED.
        credentials: for TLS; None listens without it.

    Raises:
        BitsumError: the address cannot be listened on.
    """

    def __init__(
        self,
        handlers: Handlers,
        host: str,
        port: int,
        at_once: int,
        max_request_bytes: int,
        credentials: grpc.ServerCredentials | None = None,
        arguments: tuple[tuple[str, int | str], ...] = (),
    ):
        # Room for the calls that the handlers refuse.
        most = 2 * at_once + _SPARE_CALLS
        self._server = grpc.server(
            futures.ThreadPoolExecutor(most, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=most,
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
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = (
                self._server.add_secure_port(address, credentials)
                if credentials
                else self._server.add_insecure_port(address)
            )
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise BitsumError(f"cannot listen on {address}: is the port in use? --port 0 takes a free one")

    def start(self) -> None:
        """Answer calls from now on."""
        self._server.start()

    def stop(self, grace: float) -> bool:
        """Refuse new calls, and wait at most `grace` seconds for those under way; true if they all finished in time."""
        self._health.stop()
        return self._server.stop(grace).wait(grace)
