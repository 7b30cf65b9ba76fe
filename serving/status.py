"""The status code and text of a failed request or load."""

import enum


class Code(enum.IntEnum):
    """The gRPC status codes; TensorFlow's error codes are the same."""

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
    """A request or a load failed: `code` is the number of the status, `str(error)` the text."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = int(code)

    def described(self) -> str:
        """NAME_OF_THE_CODE: text, the form in which TensorFlow Serving quotes a status."""
        return f"{self.name}: {self}"

    @property
    def name(self) -> str:
        """The name of the code."""
        return code_name(self.code)


def code_name(code: int) -> str:
    """The name of a status code, or its number if it is unknown."""
    return Code(code).name if code in Code._value2member_map_ else str(code)


def unforeseen(error: Exception, code: Code) -> StatusError:
    """The status of a library's `error`: `code`, or UNAVAILABLE for an error of the operating system."""
    is_environments = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)
    return StatusError(Code.UNAVAILABLE if is_environments else code, f"{type(error).__name__}: {error}")
