"""Sections 10_batching and 11_sizes_health, and of 13_misc the thread limit and the metrics."""

import concurrent.futures
import os
import pathlib
import re
import urllib.request
from collections.abc import Iterator

from components.processes import free_port
from tests.conformance import models, recording, replay, servers, wire
from tests.conformance.outcomes import Seen

BATCHING, SIZES, MISC = "10_batching", "11_sizes_health", "13_misc"
_BATCHING = "max_batch_size { value: 64 } batch_timeout_micros { value: 1000 }\n"
_METRICS = "/monitoring/prometheus/metrics"
_HEALTH_FIELD = b"\x0a"


def batching(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """Requests that a batching session accepts and refuses."""
    folder.mkdir(parents=True)
    parameters = folder / "batching.config"
    parameters.write_text(_BATCHING)
    flags = (
        "--model_name=m",
        f"--model_base_path={made}",
        "--enable_batching",
        f"--batching_parameters_file={parameters}",
    )
    with servers.running(program, folder, *flags) as server:
        yield from replay.replay(replay.Wire.of(server, folder), recording.load()[BATCHING].values())


def sizes_and_health(program: servers.Program, made: pathlib.Path, folder: pathlib.Path) -> Iterator[Seen]:
    """The health service, large messages, metrics, and more concurrent calls than the default number of threads."""
    monitoring = folder / "monitoring.config"
    port = free_port("127.0.0.1")
    flags = (
        "--grpc_channel_arguments=grpc.max_receive_message_length=100000",
        "--enable_grpc_healthcheck_service=true",
        servers.config_file(folder, servers.entry("m", made), servers.entry("add", made)),
        f"--monitoring_config_file={monitoring}",
        f"--{'metrics_port' if program.embedded else 'rest_api_port'}={port}",
    )
    monitoring.write_text(f'prometheus_config {{ enable: true path: "{_METRICS}" }}\n')
    with servers.running(program, folder, *flags) as server:
        yield from _health(server)
        yield from _sizes(server)
        yield from _metrics(server, port)
        yield from _threads(server)


def _health(server: servers.Server) -> Iterator[Seen]:
    for name, service in (("empty", ""), ("PredictionService",) * 2, ("ModelService",) * 2, ("nope",) * 2):
        probe = recording.load()[SIZES][f"health_{name}"]
        request = _HEALTH_FIELD + bytes([len(service)]) + service.encode() if service else b""
        yield Seen(SIZES, probe.id, wire.difference(wire.HEALTH, probe.answer, server.call(wire.HEALTH, request)))


def _sizes(server: servers.Server) -> Iterator[Seen]:
    probes = recording.load()[SIZES]
    digits = ((1,) * 8,) * 2000
    answer = server.call(wire.PREDICT, _only(models.adding(a=digits, b=digits), "ver"))
    length = len(wire.decoded(wire.PREDICT, answer.response).outputs["ver"].int64_val)
    yield Seen(
        SIZES,
        "oversize_channel_arg",
        "" if length == 2000 else f"expected 2000 versions, got {answer.code} {answer.message!r}",
    )
    with replay.default_limit(server.target) as stub:
        answer = wire.call(stub, wire.PREDICT, _zeros(400_000, 16))
    wanted = re.search(r"\(\d+ vs. \d+\)", probes["big_response_default_client"].answer.message)[0]
    same = answer.code == "RESOURCE_EXHAUSTED" and wanted in answer.message
    difference = "" if same else f"expected RESOURCE_EXHAUSTED {wanted}, got {answer.code} {answer.message!r}"
    yield Seen(SIZES, "big_response_default_client", difference)
    answer = server.call(wire.PREDICT, _zeros(400_000, 16))
    sum_ = wire.decoded(wire.PREDICT, answer.response).outputs["sum"]
    got = {"bytes": len(answer.response), "int64_val": len(sum_.int64_val), "tensor_content": len(sum_.tensor_content)}
    expected = {name: probes["big_response_size"].record[name] for name in got}
    yield Seen(SIZES, "big_response_size", "" if got == expected else f"expected {expected}, got {got}")


def _only(request: bytes, output: str) -> bytes:
    made = wire.request_type(wire.PREDICT).FromString(request)
    made.output_filter.append(output)
    return made.SerializeToString()


def _zeros(rows: int, length: int) -> bytes:
    """A request for the sums of `rows` rows of zeros and a single row: both in full would exceed 64 MiB."""
    request = wire.spec_request(wire.PREDICT, "m")
    for alias, count in (("a", rows), ("b", 1)):
        request.inputs[alias].dtype = wire.apis().types.DT_INT64
        request.inputs[alias].tensor_content = bytes(8 * count * length)
        for size in (count, length):
            request.inputs[alias].tensor_shape.dim.add(size=size)
    return _only(request.SerializeToString(), "sum")


def _metrics(server: servers.Server, port: int) -> Iterator[Seen]:
    """The request counts after three requests."""
    unknown = wire.spec_request(wire.PREDICT, "add")
    unknown.model_spec.signature_name = "nope"
    for request in (models.adding("add"), unknown.SerializeToString(), models.adding("nope")):
        server.call(wire.PREDICT, request)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{_METRICS}", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    expected = recording.load()[MISC]["prometheus"].record["request_lines"]
    missing = [line for line in expected if line not in lines]
    yield Seen(
        MISC,
        "prometheus",
        f"expected {missing}, got {[line for line in lines if 'request_count' in line]}" if missing else "",
    )


def _threads(server: servers.Server) -> Iterator[Seen]:
    """Twice as many concurrent calls as threads; the default is four threads per CPU."""
    server.call(wire.PREDICT, models.looping(10))
    calls = 8 * (os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(calls) as pool:
        answers = set(pool.map(lambda _: _described(server.call(wire.PREDICT, models.looping(20_000))), range(calls)))
    expected = set(recording.load()[MISC]["concurrency_default_threads"].record["counts"])
    yield Seen(
        MISC,
        "concurrency_default_threads",
        "" if answers == expected else f"expected {sorted(expected)}, got {sorted(answers)}",
    )


def _described(answer: wire.Answer) -> str:
    return f"{answer.code}: {answer.message}" if answer.message else answer.code
