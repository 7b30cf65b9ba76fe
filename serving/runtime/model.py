"""The interface of a loaded model, without TensorFlow."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


class Model(Protocol):
    """A version in memory: serving.runtime.loaded_model.LoadedModel, or one whose requests are batched."""

    @property
    def signatures(self) -> Mapping[str, Any]:
        """The SignatureDefs by name."""

    def run(
        self, feeds: "Mapping[str, np.ndarray]", fetches: Sequence[str], timeout: float | None = None
    ) -> "list[np.ndarray]":
        """The values of tensors `fetches` for the values of tensors `feeds`. Raises: StatusError."""

    def close(self) -> None:
        """Free the model; runs in progress are cancelled."""
