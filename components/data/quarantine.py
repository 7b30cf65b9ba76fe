"""The quarantine of a span that a gate refused: the report and the offending records.

    <folder>/span-<number>/report.json    {"span": ..., "gate": ..., "reasons": [...], "source": ...}
    <folder>/span-<number>/<name>         the offending lines or records

The refusing step loses its outputs; the quarantine stays until the same span is refused again.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

from components import atomic
from components.errors import BitsumError

REPORT_FILE = "report.json"


def place_of(folder: str, span: int) -> pathlib.Path:
    """The folder of a span's report."""
    return pathlib.Path(folder) / f"span-{span}"


def set_aside(
    folder: str, span: int, gate: str, reasons: Sequence[str], source: str, files: Mapping[str, bytes]
) -> pathlib.Path:
    """Write `files`, {name: content}, and then the report for `span`; returns their folder.

    Args:
        source: the refused folder or artifact.

    Raises:
        BitsumError: they cannot be written; the text includes the first reason for the refusal.
    """
    place = place_of(folder, span)
    report = {"span": span, "gate": gate, "reasons": list(reasons), "source": source, "files": sorted(files)}
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, content in {**files, REPORT_FILE: (json.dumps(report, indent=1) + "\n").encode()}.items():
            atomic.write(place / name, content)
    except OSError as error:
        raise BitsumError(
            f"span {span} is refused ({reasons[0]}), and its report cannot be written to {place}: {error.strerror}"
        ) from error
    return place
