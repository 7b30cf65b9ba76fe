"""The Python example of the README, run against a real server."""

import asyncio
import pathlib
import re

README = pathlib.Path(__file__).resolve().parents[3] / "README.md"


def test_the_readmes_python_runs(server):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {}

    exec(code.replace("127.0.0.1:8500", server.target), names)

    assert asyncio.run(names["sums"](20)) == list(range(1, 21))
