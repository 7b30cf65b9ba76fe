"""The embedded model server: a gRPC server around the versions of one model, in this process.

Speaks TensorFlow Serving's API (PredictionService, ModelService) and grpc.health.v1. Imports TensorFlow.
"""

import contextlib
import pathlib
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from components.errors import BitsumError
from serving.loaded_model import LoadedModel
from serving.services import Models, ModelService, PredictionService
from serving.status import StatusError
from serving.versions import Versions
from serving.warmup import replay

# Names that a health check may ask for; the empty one stands for the whole server.
_HEALTH_NAMES = ("", "PredictionService", "ModelService", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


def load(path: pathlib.Path) -> LoadedModel:
    """The version in `path`, warmed up. Raises: StatusError."""
    model = LoadedModel(path)
    try:
        replay(model, path)
    except StatusError:
        model.close()
        raise
    return model


@contextlib.contextmanager
def watching(versions: Versions, interval: float) -> Iterator[None]:
    """Poll the disk every `interval` seconds while the context lasts, beginning with the first look; unload everything after."""
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(interval):
            versions.poll()

    versions.poll()
    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        versions.close()


class Server:
    """A gRPC server for `versions`, listening once it is made, that answers once it is started.

    Args:
        threads: calls that are worked on at the same time; one more is refused with RESOURCE_EXHAUSTED.
        max_request_bytes: larger requests are refused.

    Raises:
        BitsumError: the address cannot be listened on.
    """

    def __init__(self, versions: Versions, host: str, port: int, threads: int, max_request_bytes: int):
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=threads,
            options=[
                # Two servers on one port would share the calls between them.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_request_bytes),
                ("grpc.max_send_message_length", -1),
            ],
        )
        models = Models({versions.name: versions})
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(models), self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), self._server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = _bind(self._server, host, port)

    def start(self) -> None:
        """Answer calls from now on."""
        for name in _HEALTH_NAMES:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server.start()

    def stop(self, grace: float) -> bool:
        """Refuse new calls, and wait at most `grace` seconds for those under way; true if they all finished in time."""
        self._health.enter_graceful_shutdown()
        return self._server.stop(grace).wait(grace)


def _bind(server: grpc.Server, host: str, port: int) -> int:
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise BitsumError(f"cannot listen on {host}:{port}: is the port in use? --port 0 takes a free one")
    return bound
