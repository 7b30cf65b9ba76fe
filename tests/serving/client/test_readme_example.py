"""The Python example of the README, run against a real server; with more calls at once than the server accepts."""

import asyncio
import pathlib
import re
from concurrent import futures

from serving.client import AdderClient

README = pathlib.Path(__file__).resolve().parents[3] / "README.md"
CALLS = 5000


def test_the_readmes_python_runs(server):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {}

    exec(code.replace("127.0.0.1:8500", server.target), names)

    assert asyncio.run(names["sums"](CALLS)) == list(range(1, CALLS + 1))


def test_many_threads_share_a_client(server):
    with AdderClient(server.target) as adder, futures.ThreadPoolExecutor(200) as pool:
        assert list(pool.map(lambda number: adder.add(number, 1), range(CALLS))) == list(range(1, CALLS + 1))


def test_many_clients_share_a_server(server):
    """Together they have four times as many calls in flight as the server accepts on two CPUs."""

    def sums(first):
        with AdderClient(server.target) as adder:
            return [adder.add(number, 1) for number in range(first, first + 50)]

    with futures.ThreadPoolExecutor(32) as pool:
        answers = pool.map(sums, range(0, 1600, 50))
        assert [answer for some in answers for answer in some] == list(range(1, 1601))
