"""A proven model without a training: the certified cell of tests/data, exported, with its certificate, as a pipeline
pushes it."""

import json
import pathlib
import shutil
import tempfile

from components.proof import certificate
from components.proof.weights import NAMES
from components.savedmodel import graph_identity, version_folder
from components.settings import ProofSettings
from components.task.transducer import ADDITION

_DATA = pathlib.Path(__file__).parent.parent / "data"


def export(folder: pathlib.Path) -> None:
    """Write the SavedModel to `folder`. Imports TensorFlow."""
    import numpy as np

    from components.model import export as exporting
    from components.model.carry_select import CarrySelect
    from components.model.gru import GRU

    texts = json.loads((_DATA / "addition_8_weights.json").read_text())
    cell = GRU(units=len(texts["b_z"]))
    for name in NAMES:
        variable = getattr(cell, name)
        variable.assign(np.vectorize(float.fromhex, otypes=[np.float32])(np.array(texts[name])).reshape(variable.shape))
    exporting.save(cell, str(folder), CarrySelect(ADDITION, ProofSettings().parallel_above, ProofSettings().chunk))
    (folder / certificate.FILE).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_DATA / "addition_8_certificate.json", folder / certificate.FILE)


def push(base: pathlib.Path, count: int = 1) -> list[int]:
    """Push the model to `base` as `count` versions, lowest first; all of them add, each is another one for the push."""
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "model"
        export(model)
        graph = graph_identity.graph_sha256(model)
        origin = {
            "run": "benchmark",
            "task": ADDITION.name,
            "certificate": str(certificate.FILE),
            "graph_sha256": graph,
        }
        return [version_folder.push(model, base, f"benchmark-{number}", origin).version for number in range(count)]
