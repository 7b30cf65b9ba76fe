"""serving.model_config: reads, checks and atomically writes the file without TensorFlow."""

import os
import subprocess
import sys

import pytest

from components.errors import BitsumError
from serving import model_config, protos

pytestmark = pytest.mark.fast

TEXT = """model_config_list {
  config {
    name: "m"
    base_path: "/models/m"
    model_platform: "tensorflow"
    model_version_policy {
      specific {
        versions: 3
        versions: 7
      }
    }
    version_labels {
      key: "stable"
      value: 3
    }
  }
}
"""


def test_a_config_is_written_and_read(tmp_path):
    config = model_config.one_model("m", "/models/m", [7, 3], {"stable": 3})
    assert model_config.text(config) == TEXT
    path = tmp_path / "models.config"
    path.write_text("old")
    (tmp_path / "link").symlink_to(path)
    model_config.write(tmp_path / "link", config)
    assert path.read_text() == f"{model_config.HEADING}\n{TEXT}" and (tmp_path / "link").is_symlink()
    assert model_config.read(path) == config and model_config.is_ours(path)
    assert sorted(os.listdir(tmp_path)) == ["link", "models.config"]


def test_without_versions_the_latest_is_served():
    config = model_config.one_model("m", "/models/m")
    assert "policy" not in model_config.text(config)
    assert model_config.policy(config.model_config_list.config[0])([1, 10, 9]) == {10}


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "models.config"
    path.write_text(TEXT, encoding="utf-8-sig")
    assert model_config.text(model_config.read(path)) == TEXT


def test_a_file_not_written_by_bitsum_is_not_ours(tmp_path):
    path = tmp_path / "models.config"
    path.write_text(TEXT)
    assert not model_config.is_ours(path) and not model_config.is_ours(tmp_path / "absent")
    assert model_config.read(path).model_config_list.config[0].version_labels["stable"] == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"model_config_list { foo: 1 }",
            "models.config' is not a ModelServerConfig in text form: 1:21 : Message type \"tensorflow.serving.",
        ),
        (b"model_config_list {", "Invalid protobuf file"),
        (b"\xff\xfe", "Invalid protobuf file"),
    ],
)
def test_a_syntax_error_is_reported_with_line_and_column(tmp_path, content, words):
    path = tmp_path / "models.config"
    path.write_bytes(content)
    with pytest.raises(BitsumError) as failure:
        model_config.read(path)
    assert words in str(failure.value) and "\n" not in str(failure.value)


def test_unreadable_and_unwritable_files_are_reported(tmp_path):
    with pytest.raises(BitsumError, match=r"cannot read the model config file .*absent: No such file or directory"):
        model_config.read(tmp_path / "absent")
    with pytest.raises(BitsumError, match=r"cannot write the model config file .*: No such file or directory"):
        model_config.write(tmp_path / "absent" / "file", model_config.one_model("m", "/m"))


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "models.config"
    path.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BitsumError, match="No space left on device"):
        model_config.write(path, model_config.one_model("m", "/m"))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["models.config"]


@pytest.mark.parametrize(
    ("base_path", "absolute"),
    [("/m", True), ("file:///m", True), ("m", False), ("", False), ("./m", False), ("a://m", False)],
)
def test_base_paths_are_absolute_or_uris(base_path, absolute):
    config = model_config.one_model("m", base_path)
    if absolute:
        model_config.check(config)
    else:
        with pytest.raises(model_config.StatusError):
            model_config.check(config)
    assert str(model_config.base_path(model_config.one_model("m", "file:///m").model_config_list.config[0])) == "/m"


@pytest.mark.parametrize("scheme", ["gs", "s3", "hdfs", "gs.x"])
def test_other_file_systems_are_refused_in_the_words_of_tensorflow(scheme):
    with pytest.raises(model_config.StatusError) as refusal:
        model_config.check(model_config.one_model("m", f"{scheme}://bucket/m"))
    assert str(refusal.value) == (
        f"Could not find base path {scheme}://bucket/m for servable m with error UNIMPLEMENTED: File system scheme "
        f"'{scheme}' not implemented (file: '{scheme}://bucket/m')"
    )


def test_it_does_not_import_tensorflow():
    program = "import sys; from serving import model_config; model_config.one_model('m', '/m')"
    nothing_heavy = "assert not {'tensorflow', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{program}; {nothing_heavy}"], check=True, timeout=60)
    assert protos.load().config.ModelServerConfig is type(model_config.one_model("m", "/m"))
