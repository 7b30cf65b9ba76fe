"""SpanImporter: imports a user's own span as the same kind of artifact as a generated one."""

import functools

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts

from components.data import quarantine, scratch, span_folders, span_reader
from components.data.shards import shard_path
from components.data.tf_examples import write_records
from components.errors import BitsumError, Refusal
from components.progress import report
from components.settings import Data
from components.steps.example_gen import describe

GATE = "import"
OFFENDERS_FILE = "offenders.csv"
# The refusal names this many offenders; the quarantine has all of them.
NAMED = 3


@component
def SpanImporter(
    examples: OutputArtifact[standard_artifacts.Examples],
    data: Parameter[str],
    source: Parameter[str],
    fingerprint: Parameter[str],
    quarantine_folder: Parameter[str],
    code: Parameter[str],
) -> None:
    """Write the splits of the span from its folder below `source`.

    Args:
        data: JSON of a settings.Data.
        fingerprint: of that folder when the run began, "" if it did not exist; for TFX's cache.
        quarantine_folder: folder for the report of a refused span.
        code: hash of the code, for TFX's cache.

    Raises:
        Refusal: names the first invalid lines.
        BitsumError: the span does not exist, has no pairs to train on, or has changed since the run began.
    """
    section = Data.from_json(data)
    folder = span_folders.folder_of(source, section.span)
    span = span_reader.read(folder, section)
    if span_folders.fingerprint(folder) != fingerprint:
        raise BitsumError(
            f"span {section.span} changed while it was read: {folder}; nothing was imported, run the span again"
        )
    if span.offenders:
        raise Refusal(GATE, _refused(span.offenders, section.span, str(folder), quarantine_folder))
    if not span.records["train"]:
        raise BitsumError(
            f"span {section.span} has no pairs to train on: none in {folder} belongs to the train split, which has "
            f"pairs of at most {section.max_length} bits"
        )
    with scratch.folder(examples.uri) as beside:
        for split, records in span.records.items():
            _write(beside, examples.uri, split, records, section.shards)
    describe(examples, section)
    report("generate", repeated=span.repeated, **{split: len(records) for split, records in span.records.items()})


def _refused(offenders: list[span_reader.Offender], span: int, folder: str, quarantine_folder: str) -> str:
    lines = "".join(f"{offender.file},{offender.line},{offender.text}\n" for offender in offenders)
    place = quarantine.set_aside(
        quarantine_folder, span, GATE, list(map(str, offenders)), folder, {OFFENDERS_FILE: lines.encode()}
    )
    more = f" and {len(offenders) - NAMED} more" if len(offenders) > NAMED else ""
    listed = " | ".join(map(str, offenders[:NAMED]))
    return f"span {span} in {folder}: {listed}{more}; the report is in {place}"


def _write(beside: str, uri: str, split: str, records: list[bytes], shards: int) -> None:
    for shard in range(shards):
        part = records[len(records) * shard // shards : len(records) * (shard + 1) // shards]
        fill = functools.partial(write_records, records=part)
        scratch.write(beside, shard_path(uri, split, shard, shards), fill)
