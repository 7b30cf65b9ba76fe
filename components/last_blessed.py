"""Which model the candidate is compared with: the last one that was finally blessed, other than the candidate itself.

Were it the candidate, a run with nothing new would compare the model with itself, and so would not come from the cache.
"""

from ml_metadata import metadata_store
from tfx import types
from tfx.dsl.components.common import resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy

MODEL = "model"
BLESSING = "model_blessing"
CANDIDATE = "candidate"


class LastBlessedModelStrategy(resolver.ResolverStrategy):
    """TFX's strategy on the models that are not the candidate; inputs and outputs are the three channels named above."""

    def resolve_artifacts(
        self, store: metadata_store.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """The model and its blessing, or none of both, and the candidate as it came."""
        candidates = {artifact.id for artifact in input_dict[CANDIDATE]}
        others = [model for model in input_dict[MODEL] if model.id not in candidates]
        found = LatestBlessedModelStrategy().resolve_artifacts(store, {MODEL: others, BLESSING: list(input_dict[BLESSING])})
        return {**found, CANDIDATE: input_dict[CANDIDATE]}
