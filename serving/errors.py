"""The errors of asking a model server; serving.client draws the tree."""

from components.errors import BitsumError


class ServingError(BitsumError):
    """A model server did not give an answer that can be used. `code` is the gRPC status code's name, where there is
    one."""

    def __init__(self, message: str, code: str = ""):
        super().__init__(message)
        self.code = code


class ServerUnavailable(ServingError):
    """Nobody listens there, or the connection broke."""


class DeadlineExceeded(ServingError):
    """No answer within the deadline."""


class ServerBusy(ServingError):
    """The server works on as many requests as it takes, or the message is larger than it takes."""


class ModelNotFound(ServingError):
    """The server is there, but no such model or version of it is."""


class VersionGone(ModelNotFound):
    """The version that a stream was pinned to went away, and the stream cannot begin again by itself."""


class InvalidRequest(ServingError):
    """The server refused the request: unknown label or signature, a model for another task, or the graph refused its
    inputs."""


class BadResponse(ServingError):
    """The answer is not what the signature promises: a wrong dtype or shape, or bits other than 0 and 1."""


class InvalidNumber(ServingError):
    """Refused before anything is sent: operands are integers from 0 up."""

    exit_code = 2


# gRPC status code -> error; other codes are plain ServingErrors.
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
