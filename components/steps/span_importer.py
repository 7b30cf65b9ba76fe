"""SpanImporter: imports a user's own span as the same kind of artifact as a generated one."""

import functools
import gzip
from collections.abc import Sequence

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts

from components.data import quarantine, scratch, span_folders, span_reader
from components.data.shards import shard_path
from components.data.tf_examples import write_records
from components.errors import BitsumError, Refusal
from components.formats import tfrecords
from components.printable import printable
from components.progress import tell, warn
from components.properties import NOTES
from components.settings import REFUSE, Data
from components.steps.example_gen import describe

GATE = "import"
LINES_FILE = "offenders.csv"
RECORDS_FILE = "offenders.tfrecord.gz"
# Messages name this many offenders; the quarantine has the first span_reader.MAX_OFFENDERS.
NAMED = 3


@component
def SpanImporter(
    examples: OutputArtifact[standard_artifacts.Examples],
    data: Parameter[str],
    source: Parameter[str],
    fingerprint: Parameter[str],
    missing_newline: Parameter[str],
    quarantine_folder: Parameter[str],
    code: Parameter[str],
) -> None:
    """Write the splits of the span from its folder below `source`.

    Args:
        data: JSON of a settings.Data.
        fingerprint: of that folder when the run began, "" if it did not exist; for TFX's cache.
        missing_newline: what to do about a CSV file whose last line has no newline, as in settings.Spans.
        quarantine_folder: the folder for the report if the span is refused.
        code: hash of the code, for TFX's cache.

    Raises:
        Refusal: names the first invalid lines, records or files.
        BitsumError: the span does not exist, has no pairs to train on, or has changed since the run began.
    """
    section = Data.from_json(data)
    folder = span_folders.folder_of(source, section.span, section.span_name)
    span = span_reader.read(folder, section)
    if span.fingerprint != fingerprint:
        raise BitsumError(
            f"span {section.span_name} changed while it was read: {folder}; nothing was imported, run the span again"
        )
    if missing_newline == REFUSE:
        for offender in span.unterminated:
            span.refuse(offender)
    if span.refused:
        _set_aside(span, section, str(folder), quarantine_folder)
        listed = _listed(span.offenders, span.refused)
        raise Refusal(GATE, f"span {section.span_name} in {folder}: {listed}; the report is in {quarantine_folder}")
    if not span.records["train"]:
        raise BitsumError(
            f"span {section.span_name} has no pairs to train on: {_why_empty(span, section, str(folder))}"
        )
    with scratch.folder(examples.uri) as beside:
        for split, records in span.records.items():
            _write(beside, examples.uri, split, records, section.shards)
    describe(examples, section)
    counts = ", ".join(f"{split} {len(records)}" for split, records in span.records.items())
    repeated = f"{span.repeated} of them repeat another or a generated one"
    tell(f"{folder}: {span.pairs.total()} pairs, {repeated}; imported with the generated ones: {counts}")
    notes = []
    if span.ignored:
        notes.append(f"ignored: {span_folders.named(folder, span.ignored)}")
        tell(notes[-1])
    if span.unterminated:
        notes.append(_listed(span.unterminated, len(span.unterminated)))
        warn(notes[-1])
    if span.empty:
        notes.append(f"without a pair: {_listed(span.empty, len(span.empty))}")
        warn(notes[-1])
    if notes:
        examples.set_string_custom_property(NOTES, "\n".join(map(printable, notes)))


def _set_aside(span: span_reader.Span, data: Data, folder: str, place: str) -> None:
    """Write the report and the offenders to the quarantine."""
    reasons = [str(offender) for offender in span.offenders]
    if span.refused > len(reasons):
        reasons.append(f"and {span.refused - len(reasons)} more")
    lines = "".join(f"{offender.file},{offender.place},{offender.text}\n" for offender in span.offenders)
    files = {LINES_FILE: lines.encode("utf-8", "surrogateescape")}
    if records := [offender.record for offender in span.offenders if offender.record is not None]:
        files[RECORDS_FILE] = gzip.compress(b"".join(map(tfrecords.framed, records)), mtime=0)
    quarantine.set_aside(place, data.span, GATE, reasons, folder, files)


def _listed(offenders: Sequence[object], count: int) -> str:
    return " | ".join(map(str, offenders[:NAMED])) + (f" and {count - NAMED} more" if count > NAMED else "")


def _why_empty(span: span_reader.Span, data: Data, folder: str) -> str:
    pairs, long = span.pairs.total(), span.pairs["long"]
    limit = f"longer than data.max_length = {data.max_length} bits"
    if not pairs:
        return f"the files in {folder} hold none"
    if long == pairs:
        return f"each of the {pairs} pairs in {folder} has a number {limit}; raise it"
    held_out = span.pairs["eval"]
    return f"of the {pairs} pairs in {folder}, {long} have a number {limit}, and {held_out} are held out for eval"


def _write(beside: str, uri: str, split: str, records: list[bytes], shards: int) -> None:
    for shard in range(shards):
        part = records[len(records) * shard // shards : len(records) * (shard + 1) // shards]
        fill = functools.partial(write_records, records=part)
        scratch.write(beside, shard_path(uri, split, shard, shards), fill)
