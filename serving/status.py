"""What a server answers when it does not answer: a status code and a text."""

import enum


class Code(enum.IntEnum):
    """The gRPC status codes, which are TensorFlow's error codes too."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class StatusError(Exception):
    """A request or a load failed: `code` is the number of the status code, `str(error)` the text."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = int(code)

    def described(self) -> str:
        """NAME_OF_THE_CODE: text, as TensorFlow Serving quotes a status within another text."""
        return f"{Code(self.code).name if self.code in Code._value2member_map_ else self.code}: {self}"
