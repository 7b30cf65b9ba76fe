"""Which model the candidate is compared with: one that was finally blessed before, evaluated and proven.

For a run on its own it is the last one other than the candidate itself: were it the candidate, a run with nothing new
would compare the model with itself, and so would not come from the cache. For a run in a series it is the last one of
an earlier span, from which the training begins, too: so a span that is run again begins with, and is compared with,
what it was at first. A model whose files are damaged counts as not there.
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
    """TFX's strategy on the models that are not the candidate; inputs and outputs are the three channels named
    above."""

    def resolve_artifacts(
        self, store: metadata_store.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """The model and its blessing, or none of both, and the candidate as it came."""
        candidates = {artifact.id for artifact in input_dict[CANDIDATE]}
        others = [model for model in input_dict[MODEL] if model.id not in candidates]
        while True:
            found = LatestBlessedModelStrategy().resolve_artifacts(
                store, {MODEL: others, BLESSING: list(input_dict[BLESSING])}
            )
            if all(map(output_files.is_whole, found[MODEL])):
                return {**found, CANDIDATE: input_dict[CANDIDATE]}
            others.remove(*found[MODEL])


class EarlierBlessedModelStrategy(resolver.ResolverStrategy):
    """The finally blessed model of the latest span before `span`, of several the newest; inputs and outputs are MODEL
    and BLESSING.

    Models of runs on their own, with span 0, are in no series.
    """

    def __init__(self, span: int):
        self._span = span

    def resolve_artifacts(
        self, store: metadata_store.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """The model and its blessing, or none of both."""
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
