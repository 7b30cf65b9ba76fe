"""Attempts at a certificate while a cell is trained, and the weights for which the last accepted one was.

The finder proposes boxes, the checker decides. What is kept here are the weights: the proof of the exported model is
made again from the export itself.
"""

import numpy as np

from components.model.gru import GRU
from components.proof import attempt as proof
from components.proof.weights import NAMES, Weights
from components.task.transducer import Transducer


class Attempts:
    """The attempts for `cell` to be proven to compute `task`.

    `first`: step of the first accepted certificate, `last`: step of the last, `margin`: its worst margin; None before
    one.
    """

    def __init__(self, cell: GRU, task: Transducer):
        self.first: int | None = None
        self.last: int | None = None
        self.margin: float | None = None
        self._cell = cell
        self._task = task
        self._kept: dict[str, np.ndarray] = {}

    def attempt(self, step: int, depths: tuple[int, ...] = (0,)) -> bool:
        """Whether a certificate is accepted for the cell as it is after `step`; `depths` as in `finder.find`."""
        arrays = {name: getattr(self._cell, name).numpy() for name in NAMES}
        margin = proof.prove(Weights.of(arrays), self._task, depths).margin
        if margin is not None:
            self.first = self.first or step
            self.last, self.margin, self._kept = step, margin, arrays
        return margin is not None

    def restore(self) -> None:
        """Gives the cell the weights of the last accepted certificate back; without one it is left alone."""
        for name, value in self._kept.items():
            getattr(self._cell, name).assign(value)
