"""Reads a SavedModel's weights and certificate, without TensorFlow, and checks one against the other.

`components.savedmodel.graph_identity` checks that the graph computes with these weights, and
`components.savedmodel.model_files` that no other file changes what a server runs.
"""

import dataclasses
import pathlib

from components import regular_files
from components.errors import BitsumError, unreadable
from components.proof import certificate, checker
from components.proof.weights import Weights
from components.savedmodel import checkpoint
from components.task.transducer import Transducer


@dataclasses.dataclass(frozen=True)
class Checked:
    """The weights, the text of the certificate (empty without one), and the checker's verdict on both."""

    weights: Weights
    certificate: str
    verdict: checker.Verdict


def check(model_dir: str | pathlib.Path, task: Transducer, path: pathlib.Path | None = None) -> Checked:
    """Whether the certificate at `path`, or else in the SavedModel, proves that the weights compute `task`.

    A model without a certificate is not proven.

    Raises:
        BitsumError: the weights or the certificate cannot be read.
    """
    weights = checkpoint.read(model_dir)
    file = path or pathlib.Path(model_dir) / certificate.FILE
    try:
        with regular_files.opened(file) as stream:
            # One byte more than the limit is enough for the checker to refuse it.
            source = stream.read(certificate.MAX_CHARACTERS + 1).decode("utf-8", "replace")
    except OSError as error:
        if path is None and isinstance(error, FileNotFoundError):
            verdict = checker.Verdict(False, f"the certificate {file} is missing", where="before any step")
            return Checked(weights, "", verdict)
        raise BitsumError(unreadable(f"the certificate {file}", error)) from error
    return Checked(weights, source, checker.check(source, weights, task))
