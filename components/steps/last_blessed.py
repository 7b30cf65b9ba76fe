"""Resolvers of the baseline: the last blessed model, which was evaluated and proven.

For a single run, the baseline is the last blessed model other than the candidate; otherwise a run without changes would
compare the model with itself and miss the cache. For a run in a series, it is the last blessed model of an earlier
span, from which training starts as well. So a span that runs again has the same start and the same baseline. A model
with damaged files is ignored.
"""

from ml_metadata import metadata_store
from tfx import types
from tfx.dsl.components.common import resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy

from components.data import output_files
from components.properties import BLESSED, CURRENT_MODEL_ID, SPAN

MODEL = "model"
BLESSING = "model_blessing"
CANDIDATE = "candidate"


class LastBlessedModelStrategy(resolver.ResolverStrategy):
    """TFX's strategy, applied to all models but the candidate; inputs and outputs are MODEL, BLESSING and CANDIDATE."""

    def resolve_artifacts(
        self, store: metadata_store.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """The model and its blessing, or neither; and the unchanged candidate."""
        candidates = {artifact.id for artifact in input_dict[CANDIDATE]}
        others = [model for model in input_dict[MODEL] if model.id not in candidates]
        while True:
            resolved = LatestBlessedModelStrategy().resolve_artifacts(
                store, {MODEL: others, BLESSING: list(input_dict[BLESSING])}
            )
            if all(map(output_files.is_whole, resolved[MODEL])):
                return {**resolved, CANDIDATE: input_dict[CANDIDATE]}
            others.remove(*resolved[MODEL])


class EarlierBlessedModelStrategy(resolver.ResolverStrategy):
    """The newest blessed model of the latest span before `span`; inputs and outputs are MODEL and BLESSING.

    Models of single runs, with span 0, belong to no series.
    """

    def __init__(self, span: int):
        self._span = span

    def resolve_artifacts(
        self, store: metadata_store.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """The model and its blessing, or neither."""
        models = {model.id: model for model in input_dict[MODEL]}
        blessings = [
            blessing
            for blessing in input_dict[BLESSING]
            if blessing.get_int_custom_property(BLESSED)
            and 0 < blessing.get_int_custom_property(SPAN) < self._span
            and blessing.get_int_custom_property(CURRENT_MODEL_ID) in models
        ]
        for last in sorted(
            blessings, key=lambda blessing: (blessing.get_int_custom_property(SPAN), blessing.id), reverse=True
        ):
            model = models[last.get_int_custom_property(CURRENT_MODEL_ID)]
            if output_files.is_whole(model):
                return {MODEL: [model], BLESSING: [last]}
        return {MODEL: [], BLESSING: []}
