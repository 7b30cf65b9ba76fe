"""SpanImporter: a user's own span takes the place of a generated one, as the same artifact."""

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
# How many offenders the refusal names; the quarantine has all of them.
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
    """Write the splits of the span, which lies in a folder of its own below `source`.

    Args:
        data: JSON of a settings.Data.
        fingerprint: of that folder when the run began, "" where there was none; TFX looks into its cache with it.
        quarantine_folder: where the report of a refused span goes.
        code: hash of the code, so that the cache knows of changes.

    Raises:
        Refusal: names the first lines that cannot be taken.
        BitsumError: the span is not there, has nothing to train on, or was changed since the run began.
    """
    section = Data.from_json(data)
    place = span_folders.folder_of(source, section.span)
    found = span_reader.read(place, section)
    if span_folders.fingerprint(place) != fingerprint:
        raise BitsumError(
            f"span {section.span} was changed while it was read: {place}; nothing was taken, run the span again"
        )
    if found.offenders:
        raise Refusal(GATE, _refused(found.offenders, section.span, str(place), quarantine_folder))
    if not found.records["train"]:
        raise BitsumError(
            f"span {section.span} is empty: no pair in {place} is one to train on, of at most {section.max_length} bits"
        )
    with scratch.folder(examples.uri) as beside:
        for split, records in found.records.items():
            _write(beside, examples.uri, split, records, section.shards)
    describe(examples, section)
    report("generate", repeated=found.repeated, **{split: len(records) for split, records in found.records.items()})


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
        scratch.write(beside, shard_path(uri, split, shard, shards), lambda written: write_records(written, part))
