"""Hostile configs for HandleReloadConfigRequest: invalid paths, devices, pipes, long lists, names that
cross folders."""

import random
from typing import TYPE_CHECKING

from serving import model_config

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

PIPE = "pipe"
BROKEN = "broken"
_DEVICES = ("/dev", "/dev/null", "/dev/zero", "/dev/stdin", "/dev/fd")
_PROC = ("/proc", "/proc/self/fd", "/proc/self/task", "/proc/1", "/sys")
_URLS = ("file://", "file:///nowhere", "s3://bucket/x", "gs://bucket/x", "hdfs://x/y", "ram://x")
_ODD = ("/\0", "/a\0b", "/a\nb", "/" + "p" * 5000, "/" + "p/" * 3000, "/\u00e9", "/\U0001f4a5", "/%s%n", "~", "$HOME")
_LOST = ("/nowhere/at/all", "/tmp/../tmp/../nowhere")
_PATHS = ("", "/", "//", "relative", "../..", *_DEVICES, *_PROC, *_URLS, *_ODD, *_LOST)
_NAMES = ("", "x", "../x", "x\ny", "x\0", "n" * 20_000, "\u00e9", "{}")
_VERSIONS = (-(2**63), -1, 0, 1, 2, 2**31, 2**63 - 1)
_PLATFORMS = ("tensorflow", "tensorflow", "", "nope", "x\n" * 50)


def right(model: str, folder: str) -> "ModelServerConfig":
    """The config that serves only the model."""
    return model_config.one_model(model, folder)


def config(draw: random.Random, model: str, folder: str) -> "ModelServerConfig":
    """A hostile config; most also list the served model correctly."""
    made = right(model, folder) if draw.random() < 0.8 else type(right(model, folder))()
    if draw.random() < 0.05:
        made.custom_model_config.type_url = draw.choice(("", "x", "type.googleapis.com/tensorflow.TensorProto"))
        made.custom_model_config.value = draw.randbytes(20)
        return made
    for number in range(draw.choice((0, 1, 1, 1, 1, 2, 2, 2, 2, draw.choice((30, 300))))):
        name = draw.choice((*_NAMES, model, f"x{number}"))
        path = draw.choice((*_PATHS, f"{folder}/{PIPE}", f"{folder}/{BROKEN}", f"{folder}/../{BROKEN}"))
        item = made.model_config_list.config.add(name=name, base_path=path)
        item.model_platform = draw.choice(_PLATFORMS)
        item.model_type = draw.choice((0, 0, 0, 1, 2))
        _set_policy(draw, item)
    if made.model_config_list.config and draw.random() < 0.3:
        item = draw.choice(made.model_config_list.config)
        _set_policy(draw, item)
        item.version_labels[draw.choice(_NAMES)] = draw.choice(_VERSIONS)
    return made


def _set_policy(draw: random.Random, item: object) -> None:
    policy = item.model_version_policy
    choice = draw.randrange(6)
    if choice == 0:
        policy.all.SetInParent()
    elif choice == 1:
        policy.latest.num_versions = draw.choice((0, 1, 2**32 - 1))
    elif choice == 2:
        policy.specific.versions.extend(draw.choice(_VERSIONS) for _ in range(draw.choice((0, 1, 3, 300))))
