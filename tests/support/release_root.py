"""A small root that the release 0.1.0 made under TFX 1.16, for tests of upgrades.

In a checkout of that release, with the set-up of its own:

    .venv/bin/bitsum run --set pipeline.root=/srv/bitsum --set "data.long_lengths=[16, 100]" \
        --set data.long_examples=40 --set data.train_examples=3000 --set data.eval_examples=500 \
        --set infra.examples=5 --set proof.search_seconds=0
    tar --create --gzip --file=root_0.1.0.tar.gz --directory=/srv --owner=0 --group=0 \
        --exclude=bitsum/logs --exclude=bitsum/tmp --exclude=bitsum/holders bitsum

No reader needs what is left out: the logs, the scratch folder and the list of programs that use the root.
"""

import pathlib
import subprocess

ARCHIVE = pathlib.Path(__file__).parents[1] / "data" / "root_0.1.0.tar.gz"
RUN = "20261127-174533-013166"
VERSION = "1795801736"
SETTINGS = (
    "data.long_lengths=[16, 100]",
    "data.long_examples=40",
    "data.train_examples=3000",
    "data.eval_examples=500",
    "infra.examples=5",
    "proof.search_seconds=0",
)


def unpacked(folder: pathlib.Path) -> pathlib.Path:
    """The root, moved into `folder`."""
    subprocess.run(["tar", "--extract", f"--file={ARCHIVE}", f"--directory={folder}", "--no-same-owner"], check=True)
    return folder / "bitsum"
