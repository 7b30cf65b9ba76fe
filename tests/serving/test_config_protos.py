"""serving.config_protos: the wire format, written by hand, and text files of TensorFlow Serving."""

import subprocess
import sys

import pytest

from components.errors import ConfigError
from serving import config_protos

pytestmark = pytest.mark.fast

# The tag is number * 8 + wire type: 0 for a varint, 2 for a length and its bytes.
_WIRE = [
    (
        "SSLConfig",
        'server_key: "k" server_cert: "c" custom_ca: "a" client_verify: true',
        b"\x0a\x01k\x12\x01c\x1a\x01a\x20\x01",
    ),
    ("MonitoringConfig", 'prometheus_config { enable: true path: "/m" }', b"\x0a\x06\x08\x01\x12\x02/m"),
    (
        "BatchingParameters",
        "max_batch_size { value: 1 } batch_timeout_micros { value: 2 } max_enqueued_batches { "
        "value: 3 } num_batch_threads { value: 4 } "
        'thread_pool_name { value: "t" } allowed_batch_sizes: 5 '
        "allowed_batch_sizes: 1 pad_variable_length_inputs: true "
        "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 6 }",
        b"\x0a\x02\x08\x01\x12\x02\x08\x02\x1a\x02\x08\x03\x22\x02\x08\x04\x2a\x03\x0a\x01t\x32\x02\x05\x01\x38\x01\x42\x02\x08\x01\x4a\x02\x08\x06",
    ),
]


@pytest.mark.parametrize("kind, text, wire", _WIRE)
def test_fields_have_the_numbers_of_the_real_server(kind, text, wire, tmp_path):
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    message_class = getattr(config_protos.messages(), kind)
    message = config_protos.parse_text(message_class, path)
    assert message_class.DESCRIPTOR.full_name == f"tensorflow.serving.{kind}"
    assert message.SerializeToString() == wire
    assert message_class.FromString(wire) == message


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    kind, text, wire = _WIRE[0]
    (tmp_path / "config.pbtxt").write_text(text, encoding="utf-8-sig")
    message = config_protos.parse_text(getattr(config_protos.messages(), kind), tmp_path / "config.pbtxt")
    assert message.SerializeToString() == wire


def test_a_wrapped_zero_differs_from_an_absent_value():
    parameters = config_protos.messages().BatchingParameters
    assert not parameters().HasField("max_batch_size")
    assert parameters.FromString(b"\x0a\x00").HasField("max_batch_size")


@pytest.mark.parametrize(
    "text, words",
    [
        (
            b"max_batch_size { value: 4 }\nbatch_size: 3",
            r'2:1 : Message type "tensorflow.serving.BatchingParameters" has no field named',
        ),
        (b"max_batch_size { value: 4", "1:25 : Expected"),
        (b"max_batch_size { value: four }", "1:25 : .*parse integer: four"),
        (b"max_batch_size { value: 1 }\nmax_batch_size { value: 2 }", "2:16 : .*multiple .*max_batch_size"),
        (b"\xff", "byte 0 is not UTF-8"),
    ],
)
def test_invalid_text_is_refused_with_line_and_column(text, words, tmp_path):
    path = tmp_path / "batching.pbtxt"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=words) as refusal:
        config_protos.parse_text(config_protos.messages().BatchingParameters, path)
    assert str(refusal.value).startswith(f"Invalid protobuf file: '{path}'") and "\n" not in str(refusal.value)


def test_a_file_with_keys_is_never_quoted(tmp_path):
    path = tmp_path / "ssl.pbtxt"
    path.write_text('server_key: "-----BEGIN PRIVATE KEY----- MIGHAgEA\n')
    with pytest.raises(ConfigError, match=r"1:13$") as refusal:
        config_protos.parse_text(config_protos.messages().SSLConfig, path, secret=True)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize("name, words", [("absent.pbtxt", "No such file"), ("", "is not a regular file")])
def test_an_unreadable_file_is_named(name, words, tmp_path):
    with pytest.raises(ConfigError, match=f"cannot read {tmp_path / name}: {words}"):
        config_protos.parse_text(config_protos.messages().SSLConfig, tmp_path / name)


def test_tensorflow_and_grpc_are_not_imported():
    program = (
        "import sys\nfrom serving import config_protos, tls\nfrom serving.runtime import batching_parameters\n"
        "from serving.server import metrics, request_log\nconfig_protos.messages()\n"
        "assert not {'tensorflow', 'grpc'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_messages_are_not_in_the_default_descriptor_pool():
    from google.protobuf import descriptor_pool

    config_protos.messages()
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("tensorflow.serving.SSLConfig")
