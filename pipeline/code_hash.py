"""A hash of the code: a step's cached outputs are not reused after the code has changed."""

import hashlib
import pathlib

from components import atomic

STEPS = ("components",)
STEPS_AND_SERVER = ("components", "serving")


def code_sha256(folders: tuple[str, ...]) -> str:
    """The sha256 of all Python modules and schemas in `folders`: the steps, or the steps and the server."""
    top = pathlib.Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for folder in folders:
        for path in atomic.tree(top / folder):
            if path.suffix in (".py", ".pbtxt"):
                digest.update(f"{path.relative_to(top).as_posix()}\n".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
