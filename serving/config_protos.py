"""Reads the text files of TensorFlow Serving's configuration messages that tensorflow-serving-api does not ship.

The messages have the package, names and field numbers of tensorflow_serving/config/ssl_config.proto,
config/monitoring_config.proto and servables/tensorflow/session_bundle_config.proto, so that both servers accept the
same file. Their own descriptor pool avoids a collision with a newer tensorflow-serving-api that ships them.
"""

import functools
import pathlib
import types
from typing import TYPE_CHECKING, Any

from components import regular_files
from components.errors import ConfigError
from components.formats import strict_protos

if TYPE_CHECKING:
    from google.protobuf.message import Message

_PACKAGE = "tensorflow.serving"
_WRAPPERS = "google/protobuf/wrappers.proto"
_INT64 = ".google.protobuf.Int64Value"

# File -> message -> field -> (number, type). A type with a dot is a message.
_FILES: dict[str, dict[str, dict[str, tuple[int, str]]]] = {
    "tensorflow_serving/config/ssl_config.proto": {
        "SSLConfig": {
            "server_key": (1, "string"),
            "server_cert": (2, "string"),
            "custom_ca": (3, "string"),
            "client_verify": (4, "bool"),
        }
    },
    "tensorflow_serving/config/monitoring_config.proto": {
        "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
        "MonitoringConfig": {"prometheus_config": (1, f".{_PACKAGE}.PrometheusConfig")},
    },
    "tensorflow_serving/servables/tensorflow/session_bundle_config.proto": {
        "BatchingParameters": {
            "max_batch_size": (1, _INT64),
            "batch_timeout_micros": (2, _INT64),
            "max_enqueued_batches": (3, _INT64),
            "num_batch_threads": (4, _INT64),
            "thread_pool_name": (5, ".google.protobuf.StringValue"),
            "allowed_batch_sizes": (6, "repeated int64"),
            "pad_variable_length_inputs": (7, "bool"),
            "enable_large_batch_splitting": (8, ".google.protobuf.BoolValue"),
            "max_execution_batch_size": (9, _INT64),
        }
    },
}


@functools.cache
def messages() -> types.SimpleNamespace:
    """The message classes by name: SSLConfig, PrometheusConfig, MonitoringConfig, BatchingParameters."""
    from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.Add(strict_protos.parse(descriptor_pb2.FileDescriptorProto, wrappers_pb2.DESCRIPTOR.serialized_pb))
    for name, declared in _FILES.items():
        pool.Add(_file(name, declared))
    return types.SimpleNamespace(
        **{name: message_class(pool, f"{_PACKAGE}.{name}") for declared in _FILES.values() for name in declared}
    )


def parse_text(kind: "type[Message]", path: pathlib.Path, secret: bool = False) -> Any:
    """The message of class `kind` in a file in protobuf's text format.

    Args:
        secret: the file contains keys, so that errors must not quote it.

    Raises:
        ConfigError: an unreadable file; the text starts like TensorFlow Serving's, then gives line, column and reason.
    """
    from google.protobuf import text_format

    try:
        return text_format.Parse(regular_files.read(path).decode("utf-8-sig"), kind())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"Invalid protobuf file: '{path}': byte {error.start} is not UTF-8") from error
    except text_format.ParseError as error:
        reason = f"{error.GetLine()}:{error.GetColumn()}" if secret else " ".join(str(error).split())
        # For a secret file, no cause: a traceback would show the quote.
        raise ConfigError(f"Invalid protobuf file: '{path}': {reason}") from (None if secret else error)


def _file(name: str, declared: dict[str, dict[str, tuple[int, str]]]) -> Any:
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name=name, package=_PACKAGE, syntax="proto3", dependency=[_WRAPPERS])
    for message, fields in declared.items():
        described = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            described.field.add(name=field, number=number, **_typed(kind))
    return file


def _typed(kind: str) -> dict[str, Any]:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    label = Field.LABEL_REPEATED if kind.startswith("repeated ") else Field.LABEL_OPTIONAL
    kind = kind.removeprefix("repeated ")
    if "." in kind:
        return {"label": label, "type": Field.TYPE_MESSAGE, "type_name": kind}
    return {"label": label, "type": Field.Type.Value(f"TYPE_{kind.upper()}")}


def message_class(pool: Any, name: str) -> type:
    """The class of the message with this full name in the descriptor pool `pool`."""
    from google.protobuf import message_factory

    descriptor = pool.FindMessageTypeByName(name)
    # protobuf 4.22 renamed the function and later removed the old name.
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    # The type stubs describe only newer releases.
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # type: ignore[attr-defined]
