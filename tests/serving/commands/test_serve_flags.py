"""The flags that `bitsum serve` shares with tensorflow_model_server: their effects, and one-line refusals."""

import argparse
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from components.errors import ConfigError
from serving import model_config, protos
from serving.client import AdderClient
from serving.commands import serve
from serving.errors import ServingError
from serving.server import flags
from tests.serving.conftest import bitsum, put, serving
from tests.support.waiting import wait_for

MODEL = 'config {{ name: "{}" base_path: "{}" model_platform: "tensorflow" {} }}'


@pytest.fixture
def base_path(models, tmp_path):
    base_path = tmp_path / "served"
    base_path.mkdir()
    for version in (1, 2):
        put(models / "right", base_path, version)
    return base_path


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(arguments)


def options(*arguments):
    return serve._options(parsed("--model_base_path=/m", *arguments))


def config_file(path, *models):
    path.write_text(f"model_config_list {{ {' '.join(models)} }}")
    return f"--model_config_file={path}"


def reload(target, config):
    """The message of the refusal; empty if the config was accepted."""
    import grpc

    request = protos.load().management.ReloadConfigRequest(config=config)
    with grpc.insecure_channel(target) as channel:
        try:
            protos.load().model_service.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=20)
        except grpc.RpcError as error:
            return error.details()
    return ""


def answering_version(target, **options):
    with AdderClient(target, **options) as client:
        return client.metadata().version


@pytest.mark.parametrize(
    ("given", "value"),
    [
        *((["--enable_batching" + value], True) for value in ("", "=true", "=1")),
        *((["--enable_batching" + value], False) for value in ("=false", "=0")),
        ([], False),
    ],
)
def test_booleans_are_parsed_like_tensorflow_serving(given, value):
    assert options(*given).enable_batching is value


def test_values_and_defaults_match_tensorflow_serving():
    assert (options().max_num_load_retries, options().load_retry_interval_micros) == (5, 60_000_000)
    assert options().file_system_poll_wait_seconds == 1.0 and options().enable_model_warmup
    # What it takes for the number of CPUs it asks the scheduler, too.
    assert options().threads == 4 * len(os.sched_getaffinity(0))
    given = {
        "max_num_load_retries": 0,
        "load_retry_interval_micros": -1,
        "num_load_threads": 2,
        "grpc_max_threads": 3,
        "enable_model_warmup": False,
        "model_config_file_poll_wait_seconds": 7,
        "file_system_poll_wait_seconds": 0,
        "allow_version_labels_for_unavailable_models": True,
        "metrics_port": 0,
        "request_log_rate": 0.5,
    }
    asked = options(*(f"--{name}={value}" for name, value in given.items()))
    assert {name: getattr(asked, name) for name in given} == given and asked.threads == 3
    assert options("--request_log_dir=l", "--log_file=").request_log_dir == pathlib.Path.cwd() / "l"
    arguments = flags.channel_arguments("grpc.max_connection_age_ms=2000,grpc.x=y")
    assert arguments == (("grpc.max_connection_age_ms", 2000), ("grpc.x", "y"))


def test_flags_are_passed_on_verbatim():
    assert flags.given(parsed()) == ()
    assert flags.given(parsed("--enable_batching", "--rest_api_port=8501", "--ssl_config_file=/ssl")) == (
        "--enable_batching=true",
        "--ssl_config_file=/ssl",
        "--rest_api_port=8501",
    )


def test_flags_without_effect_are_noted_and_unsupported_flags_refused():
    assert flags.check(parsed(), embedded=True) == []
    harmless = parsed("--rest_api_port=0", "--saved_model_tags=serve", "--xla_cpu_compilation_enabled=false")
    assert flags.check(harmless, embedded=True) == []
    [note] = flags.check(parsed("--num_unload_threads=3"), embedded=True)
    assert note.startswith("--num_unload_threads has no effect: ")


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        *(["--mixed_precision=bfloat16"], ["--mixed_precision", "bfloat16"], ["--mixed", "bfloat16"]),
        *(["--prefer_tflite_model"], ["--prefer_tflite_model=1"], ["--prefer_tflite_model", "true"], ["--prefer=true"]),
        *(["--xla_cpu_compilation_enabled"], ["--xla_gpu_compilation_enabled=true"], ["--xla_g"]),
        *(["--tensorflow_session_config_file=/f"], ["--tensorflow_session_config_file", "/f"]),
        *(["--platform_config_file=/f"], ["--plat", "/f"]),
        *(["--saved_model_tags=serve,gpu"], ["--saved_model_tags="], ["--saved_model_tags", "tpu"]),
    ],
    ids=" ".join,
)
def test_flags_that_change_the_computation_are_refused(arguments, embedded):
    name = next(flag.name for flag in flags.FLAGS if flag.name.startswith(arguments[0].lstrip("-").partition("=")[0]))
    with pytest.raises(ConfigError, match=f"^--{name}=.*; remove the flag$"):
        flags.check(parsed(*arguments), embedded)


def test_the_same_flags_with_their_defaults_are_passed_on():
    given = parsed("--saved_model_tags=serve", "--prefer_tflite_model=false", "--xla_gpu_compilation_enabled", "false")
    assert flags.check(given, embedded=False) == []
    assert len(flags.given(given)) == 3


@pytest.mark.parametrize(
    "arguments", [["--xla_hlo_profile"], ["--", "--mixed_precision=bfloat16"], ["--use_tflite_model"]]
)
def test_unknown_flags_are_not_passed_on(base_path, arguments):
    code, out, err = bitsum("serve", "--server=docker", f"--model_base_path={base_path}", *arguments)
    assert (code, out) == (2, "") and f"unrecognized arguments: {' '.join(arguments)}" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--rest_api_port=8501"], 2, "--rest_api_port: the embedded server speaks gRPC only"),
        (["--grpc_socket_path=/s"], 2, "--grpc_socket_path: the embedded server listens on a TCP port only"),
        (["--tensorflow_session_parallelism=4"], 2, "--server tensorflow_model_server supports it"),
        (
            ["--saved_model_tags=tpu,serve"],
            2,
            "--saved_model_tags=tpu,serve: the proof covers the graph with the tag serve",
        ),
        (["--batching_parameters_file=/p"], 2, "--batching_parameters_file needs --enable_batching"),
        (["--max_num_load_retries=-1"], 2, "must not be negative"),
        (["--request_log_rate=2"], 2, "--request_log_rate = 2: must be between 0 and 1"),
        (["--metrics_port=70000"], 2, "--metrics_port = 70000"),
        (["--grpc_channel_arguments=x"], 2, "'x' must have the form name=value"),
    ],
)
def test_invalid_flags_are_refused(base_path, arguments, code, words):
    done, out, err = bitsum("serve", "--port=0", "--server=embedded", f"--model_base_path={base_path}", *arguments)
    assert (done, out, err.count("\n")) == (code, "", 1) and words in err


@pytest.fixture
def taken():
    """A port that another program listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--port={port}"], 1, "cannot listen on 127.0.0.1:{port}: Address already in use; give another --port"),
        (["--metrics_port={port}"], 1, "127.0.0.1:{port}: Address already in use; give another --metrics_port"),
        (["--port=8599", "--metrics_port=8599"], 2, "--metrics_port = 8599: must differ from --port"),
        (["--model_base_path=gs://bucket/m"], 2, "gs://bucket/m: cannot read gs://, give a folder of this machine"),
        (["--model_config_file={folder}/gs.config"], 1, "File system scheme 'gs' not implemented (file: 'gs://b/m')"),
        (["--model_config_file={folder}/no.config"], 1, "no.config: the base_path of m, {folder}/none is not a folder"),
        (["--model_config_file={folder}/log.config"], 1, "INVALID_ARGUMENT: No request-logger-creator provided."),
        (
            ["--file_system_poll_wait_seconds=-1", "--ready_timeout=100"],
            1,
            "model bitsum waits for a version that its policy chooses at {folder}/models; it does not look again, ",
        ),
        (["--host=a..b"], 1, "cannot listen on a..b:0: Name or service not known; give another --host"),
        *(
            ([f"--{name}={value}"], 2, f"--{name}: ")
            for name in ("ready_timeout", "drain_timeout", "file_system_poll_wait_seconds")
            for value in ("nan", "inf", "1e300")
        ),
        (["--load_retry_interval_micros=" + "9" * 20], 2, "--load_retry_interval_micros: 1e+14 s must be"),
        ([f"--max_request_bytes={2**31}"], 2, f"--max_request_bytes = {2**31}: must be from 1 to {2**31 - 1}"),
        ([f"--grpc_channel_arguments=grpc.x={2**31}"], 2, f"grpc.x = {2**31} does not fit into 32 bits"),
        (["--host="], 2, "serve.host = '': must be an address, such as 127.0.0.1"),
        (["--log_file={folder}/absent/log"], 1, "cannot write --log_file {folder}/absent/log: No such file"),
        (["--log_file={folder}"], 1, "cannot write --log_file {folder}: Is a directory"),
        (["--request_log_dir={folder}/file/log"], 1, "cannot keep a request log in {folder}/file/log: Not a directory"),
        (["--ready_file={folder}"], 1, "cannot replace --ready_file {folder}: is not a regular file"),
        (["--monitoring_config_file={folder}/absent"], 2, "cannot read {folder}/absent: No such file"),
        (
            ["--enable_batching", "--batching_parameters_file={folder}/absent"],
            2,
            "cannot read {folder}/absent: No such",
        ),
    ],
)
def test_what_the_server_cannot_use_is_refused_before_the_model_loads(taken, tmp_path, arguments, code, words):
    # A load of this version fails with exit code 3.
    (tmp_path / "models" / "1").mkdir(parents=True)
    (tmp_path / "file").touch()
    config_file(tmp_path / "gs.config", MODEL.format("m", "gs://b/m", ""))
    config_file(tmp_path / "no.config", MODEL.format("m", f"file://{tmp_path}/none", ""))
    config_file(tmp_path / "log.config", MODEL.format("m", tmp_path / "models", "logging_config { }"))
    values = {"port": taken, "folder": tmp_path}
    flags = ["--port=0", *(argument.format(**values) for argument in arguments)]
    done, _, err = bitsum("serve", "--server=embedded", f"--model_base_path={tmp_path / 'models'}", *flags)
    assert (done, err.count("\n")) == (code, 1) and words.format(**values) in err


def test_serve_needs_a_model():
    code, out, err = bitsum("serve", "--port=0", "--server=embedded")
    assert (code, out, err.count("\n")) == (
        2,
        "",
        1,
    ) and "neither --model_base_path nor --model_config_file is given" in err


def test_version():
    code, out, err = bitsum("serve", "--version")
    assert (code, err) == (0, "") and "TensorFlow ModelServer: 2.16.1\n" in out


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (None, "models.config: No such file or directory"),
        (["foo: 1"], 'has no field named "foo"'),
        ([MODEL.format("m", "{}/absent", "")], "absent is not a folder"),
    ],
)
def test_invalid_config_files_are_refused(base_path, tmp_path, listed, words):
    flag = f"--model_config_file={tmp_path}/models.config"
    if listed:
        config_file(tmp_path / "models.config", *(text.replace("{}", str(base_path)) for text in listed))
    code, out, err = bitsum("serve", "--port=0", "--server=embedded", flag)
    assert (code, out, err.count("\n")) == (1, "", 1) and words in err


def test_a_missing_config_file_is_written_and_restores_its_labels(base_path, tmp_path):
    path = tmp_path / "models.config"
    wanted = ("--server=embedded", f"--model_config_file={path}")
    with serving(base_path, *wanted) as server:
        assert (server.ready.model_name, server.ready.version) == ("bitsum", 2)
        written = model_config.read(path)
        assert written == model_config.one_model("bitsum", str(base_path), [2], {"stable": 2})
        assert answering_version(server.target, label="stable") == 2
        both = model_config.one_model("bitsum", str(base_path), [1, 2], {"stable": 2})
        labelled = model_config.one_model("bitsum", str(base_path), [1, 2], {"stable": 2, "canary": 1})
        assert "version 1 of model bitsum, which is not currently available" in reload(server.target, labelled)
        assert reload(server.target, both) == ""
        wait_for(lambda: reload(server.target, labelled) == "")
        assert answering_version(server.target, label="canary") == 1
        model_config.write(path, labelled)
    with serving(base_path, *wanted) as server:
        assert [answering_version(server.target, label=label) for label in ("stable", "canary")] == [2, 1]


def test_the_config_file_is_polled(base_path, tmp_path):
    path = tmp_path / "models.config"
    flag = config_file(path, MODEL.format("m", base_path, ""), MODEL.format("n", base_path, ""))
    with serving(
        base_path, "--server=embedded", flag, "--model_config_file_poll_wait_seconds=1", "--grpc_max_threads=4"
    ) as server:
        assert (server.ready.model_name, server.ready.version) == ("m", 2)
        assert answering_version(server.target, model_name="n") == 2
        config_file(path, "foo: 1")
        config_file(path, MODEL.format("n", base_path, "model_version_policy { specific { versions: 1 } }"))
        wait_for(lambda: answering_version(server.target, model_name="n") == 1)
        with pytest.raises(ServingError, match=r"Servable not found for request: Latest\(m\)"):
            answering_version(server.target, model_name="m")


def test_an_external_server_gets_the_config_file_and_may_label_unloaded_versions(base_path, tmp_path):
    record, program = tmp_path / "record", tmp_path / "bin" / "tensorflow_model_server"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {record}\nexit 7\n')
    program.chmod(0o755)
    path = tmp_path / "models.config"
    command = [
        "serve",
        "--port=0",
        "--server=tensorflow_model_server",
        f"--model_base_path={base_path}",
        f"--model_config_file={path}",
    ]
    environment = {**os.environ, "PATH": f"{program.parent}:/usr/bin:/bin"}
    for extra in ([], ["--rest_api_port=8501", "--file_system_poll_wait_seconds=0", "--grpc_max_threads=3"]):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *command, *extra],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1 and "tensorflow_model_server ended with exit code 7" in done.stderr
        flags = record.read_text().split()[1:]
        assert flags == [
            f"--model_config_file={path}",
            f"--file_system_poll_wait_seconds={0 if extra else 1}",
            *(["--rest_api_port=8501", "--grpc_max_threads=3"] if extra else []),
            "--allow_version_labels_for_unavailable_models=true",
        ]
