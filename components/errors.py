"""The errors that a user of bitsum can meet, and the exit code of each.

BitsumError                  exit 1   something failed: a server, a disk, a file
├── ConfigError              exit 2   a knob or an argument is unknown or impossible
├── ModelError               exit 3   the model does not load or does not run, says the server; trying again changes nothing
├── Refusal                  exit 3   a gate looked at data or a model and said no; trying again changes nothing
└── serving.client has a branch of its own, drawn there

A gate refuses a model for a ModelError and for what it finds out itself. Everything else that goes wrong is the
machine's: a signal, a timeout, a port, a full disk, a program that is missing. Then the step fails, nothing is cached,
and it runs again. Ctrl-C is exit 130, SIGTERM exit 143. A KeyboardInterrupt whose text is not empty says what had been
done by then.

Every message is one line that names the value, the limit and the offender, and says what to do.
"""

import os

from components.printable import printable

# gRPC status codes, which are TensorFlow's too, by which a server says that the model does not load or does not run.
# The others are of time, memory, network and permissions: TensorFlow turns errno into these (ENOSPC and EMFILE are
# RESOURCE_EXHAUSTED, EIO is UNKNOWN): tsl/platform/errors.cc.
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
# What a prober's report counts as such: these codes, and what the client itself has against an answer or the model's
# signatures.
MODEL_ERRORS = MODEL_CODES | {"BadResponse", "InvalidRequest", "ModelNotFound"}


class BitsumError(Exception):
    """Something failed. `str(error)` is one line for the user; `exit_code` is what a command line program returns."""

    exit_code = 1


class ConfigError(BitsumError):
    """A knob or an argument is unknown, or its value is impossible."""

    exit_code = 2


class ModelError(BitsumError):
    """A model does not load or does not run, by the word of the server or library that tried."""

    exit_code = 3


class Refusal(BitsumError):
    """A gate refused: bad data or a bad model, never a bad machine, so the same run would be refused again.

    `gate` names the step that refused.
    """

    exit_code = 3

    def __init__(self, gate: str, reason: str):
        super().__init__(f"{gate} refused: {reason}")
        self.gate = gate
        # It is kept with the run, where text has to be text.
        self.reason = printable(reason)


class Terminated(KeyboardInterrupt):
    """SIGTERM: what an interrupt puts in order is put in order here, too."""


def reason(error: OSError) -> str:
    """What the system says, and of which file where it names one, for the end of a line."""
    said = error.strerror or str(error) or type(error).__name__
    return f"{said}: {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes, os.PathLike)) else said
