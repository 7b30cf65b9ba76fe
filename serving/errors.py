"""The errors of calls to a model server; serving.client shows the tree."""

from components.errors import BitsumError


class ServingError(BitsumError):
    """A model server gave no usable answer. `code` is the name of the gRPC status code, or ""."""

    def __init__(self, message: str, code: str = ""):
        super().__init__(message)
        self.code = code


class ServerUnavailable(ServingError):
    """No server listens there, or the connection broke."""


class DeadlineExceeded(ServingError):
    """No answer within the deadline."""


class ServerBusy(ServingError):
    """The server already works on as many requests as it accepts, or the message is too large for it."""


class ModelNotFound(ServingError):
    """The server has no such model or version."""


class VersionGone(ModelNotFound):
    """The version of a stream was unloaded, and the stream cannot restart by itself."""


class InvalidRequest(ServingError):
    """The server refused the request: unknown label or signature, another task's model, or inputs the graph refuses."""


class BadResponse(ServingError):
    """The answer breaks the signature: a wrong dtype or shape, or bits other than 0 and 1."""


class ClientClosed(ServingError):
    """The client was closed before or during the call, or belongs to another event loop that runs."""


class InvalidNumber(ServingError):
    """Refused before anything is sent: operands are non-negative integers."""

    exit_code = 2


class InvalidAddress(ServingError):
    """Refused before any call: not the address of a server."""

    exit_code = 2


# gRPC status code -> error; other codes become a plain ServingError.
OF_CODE = {
    "UNAVAILABLE": ServerUnavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "RESOURCE_EXHAUSTED": ServerBusy,
    "NOT_FOUND": ModelNotFound,
    "INVALID_ARGUMENT": InvalidRequest,
    "FAILED_PRECONDITION": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "UNIMPLEMENTED": InvalidRequest,
}
