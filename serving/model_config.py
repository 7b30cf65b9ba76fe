"""The model config file: the served models, their folders, versions and labels.

A text file with a tensorflow.serving.ModelServerConfig, for `--model_config_file` of both servers. The checks, their
order and their texts are those of TensorFlow Serving 2.16. Does not import TensorFlow.
"""

import pathlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from components import atomic, regular_files
from components.errors import BitsumError
from serving import protos
from serving.status import Code, StatusError

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

PLATFORM = "tensorflow"
MODEL_LIST = "model_config_list"
# A server has accepted the labels in a file with this first line, so that a restart assigns them again.
HEADING = "# Written by bitsum, which writes it again whenever what is served changes; labels in it survive a restart."
_HEADING_BYTES = 1000
_TENSORFLOW = 1
# The start of a URI, according to TensorFlow.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.]+)://")
_LOCAL = "file"


def one_model(
    name: str, base_path: str, versions: Collection[int] = (), labels: Mapping[str, int] | None = None
) -> "ModelServerConfig":
    """A config of one model: `versions`, or the latest version if empty; `labels` maps each label to a version."""
    config = protos.load().config.ModelServerConfig()
    model = config.model_config_list.config.add(name=name, base_path=base_path, model_platform=PLATFORM)
    model.model_version_policy.specific.versions.extend(sorted(versions))
    if not versions:
        model.ClearField("model_version_policy")
    model.version_labels.update(labels or {})
    return config


def read(path: pathlib.Path) -> "ModelServerConfig":
    """The config in the text file `path`. Raises: BitsumError, with line and column of a syntax error."""
    from google.protobuf import text_format

    config = protos.load().config.ModelServerConfig()
    try:
        text_format.Parse(regular_files.read(path).decode("utf-8-sig"), config)
    except OSError as error:
        raise BitsumError(f"cannot read the model config file {path}: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise BitsumError(
            f"Invalid protobuf file: '{path}' is not a ModelServerConfig in text form: {reason}"
        ) from error
    return config


def is_ours(path: pathlib.Path) -> bool:
    """Whether `write` wrote the file, so that a server has accepted its labels."""
    try:
        with regular_files.opened(path) as file:
            return file.readline(_HEADING_BYTES).strip() == HEADING.encode()
    except OSError:
        return False


def text(config: "ModelServerConfig") -> str:
    """`config` in text form."""
    from google.protobuf import text_format

    return text_format.MessageToString(config)


def write(path: pathlib.Path, config: "ModelServerConfig") -> None:
    """Write `config` to `path`, atomically and durably. Raises: BitsumError."""
    try:
        atomic.write(path, f"{HEADING}\n{text(config)}")
    except OSError as error:
        raise BitsumError(f"cannot write the model config file {path}: {error.strerror}") from error


def check(config: "ModelServerConfig", old: "ModelServerConfig | None" = None) -> None:
    """Refuse what TensorFlow Serving refuses before it checks labels and the disk; `config` would replace `old`.

    Raises:
        StatusError: no list of models, a duplicate name, a base path that is relative or on another file system, or a
        changed platform.
    """
    if config.WhichOneof("config") != MODEL_LIST:
        raise StatusError(
            Code.FAILED_PRECONDITION if old is not None else Code.INVALID_ARGUMENT,
            "Cannot transition to requested config. "
            "It is only legal to transition from one ModelConfigList to another.",
        )
    models = config.model_config_list.config
    names = set()
    for model in models:
        if model.name in names:
            raise StatusError(
                Code.INVALID_ARGUMENT, f"Illegal to list model {model.name} multiple times in config list"
            )
        names.add(model.name)
    for model in models:
        scheme = remote_scheme(model.base_path)
        if scheme is None and not model.base_path.startswith(("/", f"{_LOCAL}://")):
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}",
            )
        if scheme:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"Could not find base path {model.base_path} for servable {model.name} with error UNIMPLEMENTED: File "
                f"system scheme '{scheme}' not implemented (file: '{model.base_path}')",
            )
    before = {model.name: _platform(model) for model in old.model_config_list.config} if old is not None else {}
    for model in models:
        if model.name in before and _platform(model) != before[model.name]:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"Illegal to change a model's platform. For model {model.name} platform was {before[model.name]} "
                f"and new platform requested is {_platform(model)}",
            )


def remote_scheme(base_path: str) -> str | None:
    """The scheme of a URI that is not of a local file, such as gs; None for a path and a file:// URI."""
    match = _SCHEME.match(base_path)
    return match[1] if match and match[1] != _LOCAL else None


def check_platforms(config: "ModelServerConfig") -> None:
    """Refuse what TensorFlow Serving refuses after it has checked the labels. Raises: StatusError, an unknown
    platform."""
    for model in config.model_config_list.config:
        platform = _platform(model)
        if platform != PLATFORM:
            raise StatusError(Code.INVALID_ARGUMENT, f"Model {model.name} requests unsupported platform {platform}")


def check_logging(config: "ModelServerConfig") -> None:
    """Refuse what TensorFlow Serving refuses last, because the open-source build has no collector of requests. Raises:
    StatusError, a model has a logging_config."""
    if any(model.HasField("logging_config") for model in config.model_config_list.config):
        raise StatusError(Code.INVALID_ARGUMENT, "No request-logger-creator provided.")


def base_path(model: "ModelConfig") -> pathlib.Path:
    """The folder of the model's versions."""
    return pathlib.Path(model.base_path.removeprefix(f"{_LOCAL}://"))


def policy(model: "ModelConfig") -> Callable[[Collection[int]], set[int]]:
    """The function that chooses among the versions on disk; by default it chooses the highest."""
    choice = model.model_version_policy.WhichOneof("policy_choice")
    if choice == "all":
        return set
    if choice == "specific":
        specific = set(model.model_version_policy.specific.versions)
        return lambda versions: specific & set(versions)
    return latest(model.model_version_policy.latest.num_versions)


def latest(count: int) -> Callable[[Collection[int]], set[int]]:
    """The policy of the `count` highest versions; 0 counts as 1."""
    return lambda versions: set(sorted(versions)[-max(count, 1) :])


def _platform(model: "ModelConfig") -> str:
    if model.model_type and model.model_platform:
        raise StatusError(
            Code.INVALID_ARGUMENT,
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform, "
            f"model name is {model.name}",
        )
    if model.model_type not in (0, _TENSORFLOW):
        raise StatusError(
            Code.INVALID_ARGUMENT, f"ModelServerConfig::model_type choice {model.model_type} not supported."
        )
    if not model.model_type and not model.model_platform:
        raise StatusError(
            Code.INVALID_ARGUMENT,
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}",
        )
    return PLATFORM if model.model_type else model.model_platform
