"""serving.runtime.batching_parameters: TensorFlow Serving's defaults, and refused values."""

import os

import pytest

from components.errors import ConfigError
from serving.runtime.batching_parameters import BatchingParameters, read

pytestmark = pytest.mark.fast


def _file(folder, text):
    path = folder / "batching.pbtxt"
    path.write_text(text)
    return path


def test_the_defaults_are_those_of_the_shared_batch_scheduler(tmp_path):
    assert read(None) == read(_file(tmp_path, "")) == BatchingParameters(1000, 0, 10, len(os.sched_getaffinity(0)), ())


def test_a_file_overrides_the_defaults(tmp_path):
    text = """
        max_batch_size { value: 64 }  batch_timeout_micros { value: 1000 }  max_enqueued_batches { value: 7 }
        num_batch_threads { value: 3 }  thread_pool_name { value: "mine" }  allowed_batch_sizes: [8, 32, 64]
        pad_variable_length_inputs: true  enable_large_batch_splitting { value: false }
        max_execution_batch_size { value: 32 }
    """
    assert read(_file(tmp_path, text)) == BatchingParameters(64, 1000, 7, 3, (8, 32, 64))


@pytest.mark.parametrize(
    "text, refusal",
    [
        ("num_batch_threads { value: 0 }", "num_batch_threads = 0: must be at least 1"),
        ("max_batch_size { }", "max_batch_size = 0: must be at least 1"),
        ("batch_timeout_micros { value: -5 }", "batch_timeout_micros = -5: must be at least 0"),
        ("max_enqueued_batches { value: 0 }", "max_enqueued_batches = 0: must be at least 1"),
        (
            "enable_large_batch_splitting { value: true }",
            "enable_large_batch_splitting: bitsum does not split large requests; remove the line",
        ),
        ("allowed_batch_sizes: 8", "allowed_batch_sizes = [8]: must grow from 1 or more to max_batch_size, 1000"),
        ("allowed_batch_sizes: [8, 8, 10] max_batch_size { value: 10 }", "allowed_batch_sizes = [8, 8, 10]: must grow"),
        ("allowed_batch_sizes: [0, 10] max_batch_size { value: 10 }", "allowed_batch_sizes = [0, 10]: must grow"),
    ],
)
def test_an_invalid_value_is_refused_with_the_name_of_the_file(text, refusal, tmp_path):
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        read(path)
    assert str(refused.value).startswith(f"--batching_parameters_file {path}: {refusal}")


@pytest.mark.parametrize("size, padded", [(1, 8), (8, 8), (9, 64), (64, 64), (65, 65)])
def test_a_batch_is_padded_to_the_next_allowed_size(size, padded):
    assert BatchingParameters(max_batch_size=64, allowed_batch_sizes=(8, 64)).padded_size(size) == padded
    assert BatchingParameters(max_batch_size=64).padded_size(size) == size
