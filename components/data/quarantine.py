"""The quarantine of a span that a gate refused: the report and the offending records.

    <folder>/span-<number or date>/report.json    {"span": ..., "gate": ..., "reasons": [...], "source": ...}
    <folder>/span-<number or date>/<name>         the offending lines or records

The refusing step loses its outputs; the quarantine stays until the same span is refused again.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

from components import atomic
from components.errors import BitsumError

REPORT_FILE = "report.json"


def set_aside(
    place: str, span: int, gate: str, reasons: Sequence[str], source: str, files: Mapping[str, bytes]
) -> None:
    """Write `files`, {name: content}, and then the report for `span` to the folder `place`.

    Args:
        source: the refused folder or artifact.

    Raises:
        BitsumError: they cannot be written; the text includes the first reason for the refusal.
    """
    report = {"span": span, "gate": gate, "reasons": list(reasons), "source": source, "files": sorted(files)}
    try:
        pathlib.Path(place).mkdir(parents=True, exist_ok=True)
        for name, content in {**files, REPORT_FILE: (json.dumps(report, indent=1) + "\n").encode()}.items():
            atomic.write(pathlib.Path(place, name), content)
    except OSError as error:
        raise BitsumError(
            f"the span is refused ({reasons[0]}), and its report cannot be written to {place}: {error.strerror}"
        ) from error
