"""Which spans a run in a series reads besides its own: those before it that the data gate blessed.

Both strategies look at the blessings and not at what was merely made: a span that was refused is in no window and no
measure of drift. Neither looks at the time: a run of an earlier span, later on, reads what is earlier than its span.
What has damaged files counts as not there.
"""

import itertools
from collections.abc import Iterator

from ml_metadata import metadata_store
from tfx import types
from tfx.dsl.components.common import resolver

from components.data import output_files
from components.properties import EXAMPLES_ID, SPAN, SPLITS_KEY, STATISTICS_ID

BLESSING = "data_blessing"
CURRENT = "current"
EXAMPLES = "examples"
STATISTICS = "statistics"

Artifacts = dict[str, list[types.Artifact]]


class WindowStrategy(resolver.ResolverStrategy):
    """The examples of the run itself (CURRENT) and of the last blessed spans before it, `window` spans in all, as
    EXAMPLES.

    Earlier examples that were split by other rules are left out: what they train on may be held out here.
    """

    def __init__(self, span: int, window: int):
        self._span, self._window = span, window

    def resolve_artifacts(self, store: metadata_store.MetadataStore, input_dict: Artifacts) -> Artifacts:
        """EXAMPLES newest span first; the other inputs as they came, but no blessing."""
        [current] = input_dict[CURRENT]
        rules = current.get_string_custom_property(SPLITS_KEY)
        same = [found for found in input_dict[EXAMPLES] if found.get_string_custom_property(SPLITS_KEY) == rules]
        earlier = _blessed_before(self._span, input_dict[BLESSING], EXAMPLES_ID, same)
        return {EXAMPLES: [current, *itertools.islice(earlier, self._window - 1)], CURRENT: [current], BLESSING: []}


class PreviousStatisticsStrategy(resolver.ResolverStrategy):
    """The statistics of the last blessed span before the run's, as STATISTICS; none if there is no such span."""

    def __init__(self, span: int):
        self._span = span

    def resolve_artifacts(self, store: metadata_store.MetadataStore, input_dict: Artifacts) -> Artifacts:
        """STATISTICS, one or none; no blessing."""
        earlier = _blessed_before(self._span, input_dict[BLESSING], STATISTICS_ID, input_dict[STATISTICS])
        return {STATISTICS: list(itertools.islice(earlier, 1)), BLESSING: []}


def _blessed_before(
    span: int, blessings: list[types.Artifact], id_property: str, artifacts: list[types.Artifact]
) -> Iterator[types.Artifact]:
    """The artifact of each blessed span before `span`, latest span first; of a span that was blessed twice the newer
    one."""
    known = {artifact.id: artifact for artifact in artifacts}
    by_span: dict[int, dict[int, types.Artifact]] = {}
    for blessing in sorted(blessings, key=lambda blessing: blessing.id, reverse=True):
        number, artifact_id = blessing.get_int_custom_property(SPAN), blessing.get_int_custom_property(id_property)
        if 0 < number < span and artifact_id in known:
            by_span.setdefault(number, {})[artifact_id] = known[artifact_id]
    for number in sorted(by_span, reverse=True):
        yield from itertools.islice(filter(output_files.is_whole, by_span[number].values()), 1)
