"""Resolvers of the earlier spans that a run in a series reads: those that the data gate blessed.

Both strategies follow the blessings, so a refused span is in no window and no drift comparison. Neither depends on
time: a later run of an earlier span reads only spans before its own. Artifacts with damaged files are ignored.
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
    """The examples of the run itself (CURRENT) and of the last blessed spans before it, `window` spans in total, as
    EXAMPLES.

    Earlier examples split by other rules are left out: their training data may be held out here.
    """

    def __init__(self, span: int, window: int):
        self._span, self._window = span, window

    def resolve_artifacts(self, store: metadata_store.MetadataStore, input_dict: Artifacts) -> Artifacts:
        """EXAMPLES, newest span first; the other inputs unchanged, but no blessing."""
        [current] = input_dict[CURRENT]
        rules = current.get_string_custom_property(SPLITS_KEY)
        same = [item for item in input_dict[EXAMPLES] if item.get_string_custom_property(SPLITS_KEY) == rules]
        earlier = _blessed_before(self._span, input_dict[BLESSING], EXAMPLES_ID, same)
        return {EXAMPLES: [current, *itertools.islice(earlier, self._window - 1)], CURRENT: [current], BLESSING: []}


class PreviousStatisticsStrategy(resolver.ResolverStrategy):
    """The statistics of the last blessed span before the run's, as STATISTICS; none without such a span."""

    def __init__(self, span: int):
        self._span = span

    def resolve_artifacts(self, store: metadata_store.MetadataStore, input_dict: Artifacts) -> Artifacts:
        """STATISTICS, one or none; no blessing."""
        earlier = _blessed_before(self._span, input_dict[BLESSING], STATISTICS_ID, input_dict[STATISTICS])
        return {STATISTICS: list(itertools.islice(earlier, 1)), BLESSING: []}


def _blessed_before(
    span: int, blessings: list[types.Artifact], id_property: str, artifacts: list[types.Artifact]
) -> Iterator[types.Artifact]:
    """The artifact of each blessed span before `span`, latest span first; for a span blessed twice, the newer one."""
    by_id = {artifact.id: artifact for artifact in artifacts}
    by_span: dict[int, dict[int, types.Artifact]] = {}
    for blessing in sorted(blessings, key=lambda blessing: blessing.id, reverse=True):
        number, artifact_id = blessing.get_int_custom_property(SPAN), blessing.get_int_custom_property(id_property)
        if 0 < number < span and artifact_id in by_id:
            by_span.setdefault(number, {})[artifact_id] = by_id[artifact_id]
    for number in sorted(by_span, reverse=True):
        yield from itertools.islice(filter(output_files.is_whole, by_span[number].values()), 1)
