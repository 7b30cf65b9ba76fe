"""Attempts at a certificate during training, and the weights of the last accepted certificate.

The finder proposes boxes, the checker decides. Only the weights are kept: the Prover proves the exported model again.
"""

import numpy as np

from components.model.gru import GRU
from components.proof import attempt
from components.proof.weights import NAMES, Weights
from components.task.transducer import Transducer


class Attempts:
    """The attempts to prove that `cell` computes `task`.

    `first`: step of the first accepted certificate, `last`: step of the last, `margin`: the last one's worst margin;
    None without a certificate.
    """

    def __init__(self, cell: GRU, task: Transducer):
        self.first: int | None = None
        self.last: int | None = None
        self.margin: float | None = None
        self._cell = cell
        self._task = task
        self._kept: dict[str, np.ndarray] = {}

    def attempt(self, step: int, depths: tuple[int, ...] = (0,)) -> bool:
        """Whether the checker accepts a certificate for the cell after `step`; `depths` as in `finder.find`."""
        arrays = {name: getattr(self._cell, name).numpy() for name in NAMES}
        margin = attempt.prove(Weights.of(arrays), self._task, depths).margin
        if margin is not None:
            self.first = self.first or step
            self.last, self.margin, self._kept = step, margin, arrays
        return margin is not None

    def restore(self) -> None:
        """Restore the weights of the last accepted certificate; without one the cell stays as it is."""
        for name, value in self._kept.items():
            getattr(self._cell, name).assign(value)
