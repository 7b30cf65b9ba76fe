"""What a server answers when it does not answer: a status code and a text."""

import enum


class Code(enum.IntEnum):
    """The gRPC status codes that the server gives, which are TensorFlow's error codes too."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15


class StatusError(Exception):
    """A request or a load failed: `code` is the number of the status code, `str(error)` the text."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = int(code)
