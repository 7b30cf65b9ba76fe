"""A program in the place of a model server: it says at once that it is ready, notes in a file that it was started, and
then ends."""

import sys

# `starts`: the file that gets a line for each start; `end`: what it does then, in Python.
SERVER = """
import json, os, pathlib, resource, signal, sys, time
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with open({starts!r}, "a") as file:
    file.write("started\\n")
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
beside = flags["ready_file"] + ".tmp"
pathlib.Path(beside).write_text(json.dumps({{"host": "127.0.0.1", "port": 4321, "server": "fake", "version": 1}}))
os.rename(beside, flags["ready_file"])
{end}
"""


def python(program: str, **values) -> list[str]:
    """The command that runs `program`, with `values` put in where there are any."""
    return [sys.executable, "-c", program.format(**values) if values else program]
