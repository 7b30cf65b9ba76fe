"""The errors that a user of bitsum can meet, and the exit code of each.

BitsumError                  exit 1   something failed: a server, a disk, a file
├── ConfigError              exit 2   a knob or an argument is unknown or impossible
├── ModelError               exit 3   the server reports that the model does not load or run; a retry does not help
├── Refusal                  exit 3   a gate refused data or a model; a retry does not help
└── serving.client.ServingError and its subclasses

A gate refuses a model for a ModelError and for its own findings. Every other failure is the machine's: a signal, a
timeout, a port, a full disk, a missing program. Then the step fails, nothing is cached, and it runs again. Ctrl-C is
exit 130, SIGTERM exit 143. The text of a KeyboardInterrupt, if any, names what was completed before it.

Every message is one line that names the value, the limit and the offender, and says what to do.
"""

import os

from components.printable import printable

# The status codes of gRPC and TensorFlow that mean that the model does not load or run. The other codes concern time,
# memory, network and permissions; TensorFlow maps errno to them (ENOSPC and EMFILE to RESOURCE_EXHAUSTED, EIO to
# UNKNOWN): tsl/platform/errors.cc.
MODEL_CODES = frozenset(
    {
        "ALREADY_EXISTS",
        "DATA_LOSS",
        "FAILED_PRECONDITION",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
    }
)
# A prober's report counts these as errors of the model: the codes above, and the client's own errors about an answer or
# about the model's signatures.
MODEL_ERRORS = MODEL_CODES | {"BadResponse", "InvalidRequest", "ModelNotFound"}


class BitsumError(Exception):
    """Something failed. `str(error)` is one line for the user; `exit_code` is the exit code of the command."""

    exit_code = 1


class ConfigError(BitsumError):
    """A knob or an argument is unknown, or its value is impossible."""

    exit_code = 2


class ModelError(BitsumError):
    """A model does not load or run, according to the server or library that tried."""

    exit_code = 3


class Refusal(BitsumError):
    """A gate refused the data or the model. The machine is not the cause: the same run would be refused again.

    `gate` is the name of the step that refused.
    """

    exit_code = 3

    def __init__(self, gate: str, reason: str):
        super().__init__(f"{gate} refused: {reason}")
        self.gate = gate
        # Stored with the run, where only valid text is allowed.
        self.reason = printable(reason)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which needs the same clean-up as an interrupt."""


def unreadable(what: object, error: OSError) -> str:
    """The line about a file or folder that cannot be read, and what to do if only other users may read it."""
    line = f"cannot read {what}: {error.strerror or error}"
    if not isinstance(error, PermissionError):
        return line
    return f"{line}; run this as a user who may read it, or grant that: chmod -R a+rX"


def reason(error: OSError) -> str:
    """The system's message and the file, if it names one, for the end of a line."""
    text = error.strerror or str(error) or type(error).__name__
    return f"{text}: {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes, os.PathLike)) else text
