"""A model server without a network that outlives its client: what it serves lies in a file. Its calls are
operations."""

import _io
import json
import posix

import grpc

from serving import model_config, protos
from tests.support import in_memory

LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "NO_THREAD")


class ModelServer:
    """`state` is the file with what it serves: {"versions": [...], "labels": {...}}. Versions load at once."""

    def __init__(self, state):
        self.state = state

    def serve(self, config):
        """Serve `config` of one model, or fail as TensorFlow Serving does."""
        [model] = config.model_config_list.config
        versions = sorted(model.model_version_policy.specific.versions)
        if not set(model.version_labels.values()) <= set(versions):
            raise in_memory.Failure(grpc.StatusCode.FAILED_PRECONDITION, "a label for a version that is not available")
        # These names of the functions are not the ones that are watched: the disk is the client's, not the server's.
        with _io.open(f"{self.state}.new", "w") as file:
            file.write(json.dumps({"versions": versions, "labels": dict(model.version_labels)}))
        posix.replace(f"{self.state}.new", self.state)

    def serves(self):
        with _io.open(self.state) as file:
            return json.load(file)

    def channel(self, injector):
        """In the place of grpc.insecure_channel."""
        return lambda *_, **__: Channel(self, injector)


class Channel(in_memory.Channel):
    """A connection; a lost call ends in one of the ways of LOST."""

    def __init__(self, server, injector):
        super().__init__()
        self._server, self._injector = server, injector

    def close(self):
        pass

    def answer(self, method, request, timeout=None):
        if method == "HandleReloadConfigRequest":
            return self._injector.operation("call", lambda: self._reload(request), _lost)
        return self._injector.operation("call", lambda: super(Channel, self).answer(method, request, timeout), _lost)

    def _reload(self, request):
        self._server.serve(request.config)
        return protos.load().management.ReloadConfigResponse()

    def _check(self, spec):
        serves = self._server.serves()
        if spec.version_label and spec.version_label not in serves["labels"]:
            raise in_memory.Failure(
                grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}"
            )
        self.version = serves["labels"].get(spec.version_label, max(serves["versions"]))

    def _status(self, request):
        apis = protos.load()
        found = apis.status.GetModelStatusResponse()
        for version in self._server.serves()["versions"]:
            found.model_version_status.add(version=version, state=apis.status.ModelVersionStatus.AVAILABLE)
        return found


def in_file(path):
    """The same of a model config file."""
    [model] = model_config.read(path).model_config_list.config
    return {"versions": sorted(model.model_version_policy.specific.versions), "labels": dict(model.version_labels)}


def _lost(kind):
    if kind == "NO_THREAD":
        return RuntimeError("can't start new thread")
    return in_memory.Failure(getattr(grpc.StatusCode, kind), "the call is lost")
