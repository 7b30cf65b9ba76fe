"""A SavedModel's weights and the certificate for them: both read, and the one checked against the other.

Without TensorFlow. Whether the graph computes with these weights is for `components.savedmodel.graph_identity`, and whether other
files change what a server runs for `components.savedmodel.model_files`.
"""

import dataclasses
import pathlib

from components.errors import BitsumError
from components.proof import certificate, checker
from components.proof.weights import Weights
from components.savedmodel import checkpoint
from components.task.transducer import Transducer


@dataclasses.dataclass(frozen=True)
class Checked:
    """The weights that were read, the text of the certificate (empty where there is none), and what the checker says of
    both."""

    weights: Weights
    certificate: str
    verdict: checker.Verdict


def check(model_dir: str | pathlib.Path, task: Transducer, path: pathlib.Path | None = None) -> Checked:
    """Whether the certificate at `path`, or else the one in the SavedModel, proves that its weights compute `task`.

    Raises:
        BitsumError: the weights or the certificate cannot be read. A model without a certificate is not proven.
    """
    weights = checkpoint.read(model_dir)
    file = path or pathlib.Path(model_dir) / certificate.FILE
    try:
        with open(file, "rb") as stream:
            # One byte more than a certificate may have is enough to refuse it.
            source = stream.read(certificate.MAX_CHARACTERS + 1).decode("utf-8", "replace")
    except OSError as error:
        if path is None and isinstance(error, FileNotFoundError):
            verdict = checker.Verdict(False, f"there is no certificate {file}", where="before any step")
            return Checked(weights, "", verdict)
        raise BitsumError(f"cannot read the certificate {file}: {error.strerror}") from error
    return Checked(weights, source, checker.check(source, weights, task))
