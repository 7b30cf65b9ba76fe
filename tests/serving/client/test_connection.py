"""Both clients over real gRPC connections: a server that restarts, TLS, streams, a running event loop.

The server is one of gRPC's own, in this process, that answers as tests.support.in_memory does.
"""

import asyncio
import contextlib
import random
import threading
import time
from concurrent import futures

import grpc
import pytest

from components.processes import free_port
from pipeline import cli
from serving import protos
from serving.client import AdderClient, AsyncAdderClient, InvalidRequest, ServerBusy, ServerUnavailable
from tests.support.identities import Identity
from tests.support.in_memory import Channel, Failure


@contextlib.contextmanager
def answering(channel, port=0, credentials=None, threads=4):
    """The address of a server that answers like `channel`."""
    apis = protos.load()
    server = grpc.server(futures.ThreadPoolExecutor(threads), options=[("grpc.so_reuseport", 0)])

    def handler(method):
        def answer(request, context):
            try:
                return channel.answer(method, request)
            except Failure as failure:
                context.abort(failure.code(), failure.details())

        return answer

    handlers = {
        method: grpc.unary_unary_rpc_method_handler(
            handler(method), kind.FromString, lambda message: message.SerializeToString()
        )
        for method, kind in (
            ("Predict", apis.predict.PredictRequest),
            ("GetModelMetadata", apis.metadata.GetModelMetadataRequest),
        )
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", handlers),)
    )
    address = f"127.0.0.1:{port}"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(None).wait()


@pytest.fixture(params=[AdderClient, AsyncAdderClient], ids=["blocking", "asyncio"])
def ask(request):
    """A function: target, conversation with a client, options -> the result of `talk`; coroutines are awaited."""

    def run(target, talk, **options):
        if request.param is AdderClient:
            with AdderClient(target, **options) as client:
                return talk(client)

        async def on_a_loop():
            async with AsyncAdderClient(target, **options) as client:
                return await talk(client)

        return asyncio.run(on_a_loop())

    return run


def test_the_client_waits_for_a_server_that_restarts(ask, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    port, started, stop = free_port("127.0.0.1"), threading.Event(), threading.Event()

    def later():
        time.sleep(1)
        with answering(Channel(), port):
            started.set()
            stop.wait()

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert ask(f"127.0.0.1:{port}", lambda client: client.add(13, 29)) == 42 and started.is_set()
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("code", "attempts", "calls", "error"),
    [
        ("UNAVAILABLE", 3, 3, ServerUnavailable),
        ("UNAVAILABLE", 1, 1, ServerUnavailable),
        ("RESOURCE_EXHAUSTED", 1, 1, ServerBusy),
        ("INVALID_ARGUMENT", 5, 1, InvalidRequest),
    ],
)
def test_calls_are_retried_up_to_the_limit_and_only_if_unavailable(ask, code, attempts, calls, error):
    def refuse(signature, outputs):
        raise Failure(grpc.StatusCode[code], "not now")

    channel = Channel(refuse)
    with answering(channel) as target, pytest.raises(error, match="not now"):
        ask(target, lambda client: client.add(13, 29), attempts=attempts)
    assert len(channel.requests) == calls


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_what_judges_the_server_asks_it_once(code, capsys):
    class Refusing(Channel):
        def answer(self, method, request, timeout=None):
            self.requests.append(request)
            raise Failure(grpc.StatusCode[code], "not now")

    channel = Refusing()
    with answering(channel) as target:
        assert cli.main(["qualify", target]) == 1
        assert len(channel.requests) == 1
        # It gives up after five failures, of which each is one call.
        assert cli.main(["probe", target, "--signature=add_bits", "--count=100"]) == 1
        assert len(channel.requests) == 1 + 5
    assert "not now" in capsys.readouterr().out


def test_a_call_succeeds_at_the_third_attempt(ask):
    def refuse(signature, outputs):
        if len(channel.requests) < 3:
            raise Failure(grpc.StatusCode.UNAVAILABLE, "not now")

    channel = Channel(refuse)
    with answering(channel) as target:
        assert ask(target, lambda client: client.add(13, 29)) == 42


@pytest.mark.parametrize("option", ["attempts", "max_concurrent_calls", "max_batch_size"])
@pytest.mark.parametrize("value", [0, 1.5, "4", None])
def test_numbers_that_are_no_integer_from_one_are_refused(option, value):
    for kind in (AdderClient, AsyncAdderClient):
        with pytest.raises(ValueError, match=f"{option} = {value!r} must be an integer, 1 or more"):
            kind("127.0.0.1:1", **{option: value})


def test_an_abandoned_stream_cancels_its_call_and_the_client_stays_usable():
    async def on_a_loop(target):
        async with AsyncAdderClient(target) as client:
            async with contextlib.aclosing(client.add_stream([bytes(100_000)], [])) as stream:
                await anext(stream)
            return await client.add(13, 29)

    with answering(Channel()) as target:
        assert asyncio.run(on_a_loop(target)) == 42
        with AdderClient(target) as client:
            with contextlib.closing(client.add_stream([bytes(100_000)], [])) as stream:
                next(stream)
            assert client.add(13, 29) == 42


def test_the_blocking_client_works_inside_a_loop_and_the_async_client_is_created_outside_one():
    # As in a notebook, whose cells run on a loop.
    async def cell(target, client):
        with AdderClient(target) as blocking:
            assert blocking.add(13, 29) == 42
        assert await asyncio.gather(*(client.add(n, n) for n in range(50))) == [2 * n for n in range(50)]
        await client.close()

    with answering(Channel()) as target:
        asyncio.run(cell(target, AsyncAdderClient(target)))


def test_cancelling_leaves_the_client_usable():
    def slow(signature, outputs):
        if len(channel.predictions) == 1:
            released.wait(10)

    async def on_a_loop(target):
        async with AsyncAdderClient(target) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.add(1, 2), 0.2)
            released.set()
            return await client.add(13, 29)

    channel, released = Channel(slow), threading.Event()
    with answering(channel) as target:
        assert asyncio.run(on_a_loop(target)) == 42


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    """Paths of a key and of its self-signed certificate for 127.0.0.1."""
    own, folder = Identity("test", address="127.0.0.1"), tmp_path_factory.mktemp("identity")
    (folder / "key").write_text(own.private_key)
    (folder / "cert").write_text(own.certificate)
    return folder / "key", folder / "cert"


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(ask, identity, mutual, tmp_path, capsys):
    from serving import tls

    key, cert = identity
    server = grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())], cert.read_bytes(), require_client_auth=mutual
    )
    own = (cert, key) if mutual else (None, None)
    flags = [f"--tls_ca={cert}", *([f"--tls_cert={cert}", f"--tls_key={key}"] if mutual else [])]
    with answering(Channel(), credentials=server) as target:
        assert ask(target, lambda client: client.add(13, 29), credentials=tls.client_credentials(cert, *own)) == 42
        assert cli.main(["add", "13", "29", "--server", target, *flags]) == 0
        assert capsys.readouterr().out == "42\n"
        # The call arrives; this fake server does not implement GetModelStatus.
        assert cli.main(["status", "--set", f"pipeline.root={tmp_path}", "--server", target, *flags]) == 1
        assert "UNIMPLEMENTED" in capsys.readouterr().out
        with pytest.raises(ServerUnavailable):
            ask(target, lambda client: client.add(13, 29), attempts=1)
        if mutual:
            with pytest.raises(ServerUnavailable):
                ask(target, lambda client: client.add(13, 29), attempts=1, credentials=tls.client_credentials(cert))
