"""serving.batching_parameters: TensorFlow Serving's defaults and refusals."""

import os

import pytest

from components.errors import ConfigError
from serving.batching_parameters import BatchingParameters, read


def _file(folder, text):
    path = folder / "batching.pbtxt"
    path.write_text(text)
    return path


def test_the_defaults_are_those_of_the_shared_batch_scheduler():
    expected = BatchingParameters(
        max_batch_size=1000, batch_timeout_micros=0, max_enqueued_batches=10, num_batch_threads=len(os.sched_getaffinity(0)),
        thread_pool_name="model_server_batch_threads", allowed_batch_sizes=(), pad_variable_length_inputs=False,
        enable_large_batch_splitting=False, max_execution_batch_size=1000,
    )  # fmt: skip
    assert read(None) == expected


def test_a_file_without_anything_has_the_defaults(tmp_path):
    assert read(_file(tmp_path, "")) == BatchingParameters(thread_pool_name="batch_threads")


def test_everything_that_a_file_gives_is_taken(tmp_path):
    text = """
        max_batch_size { value: 64 }  batch_timeout_micros { value: 1000 }  max_enqueued_batches { value: 7 }
        num_batch_threads { value: 3 }  thread_pool_name { value: "mine" }  allowed_batch_sizes: [8, 32, 64]
        pad_variable_length_inputs: true  enable_large_batch_splitting { value: true }  max_execution_batch_size { value: 32 }
    """
    assert read(_file(tmp_path, text)) == BatchingParameters(64, 1000, 7, 3, "mine", (8, 32, 64), True, True, 32)


@pytest.mark.parametrize(
    "text, refusal",
    [
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("max_batch_size { value: 0 }", "input_batch_size_limit must be positive; was 0"),
        ("max_batch_size { }", "input_batch_size_limit must be positive; was 0"),
        ("max_batch_size { value: -1 }", "input_batch_size_limit must be positive; was -1"),
        ("batch_timeout_micros { value: -5 }", "batch_timeout_micros must be non-negative; was -5"),
        ("max_enqueued_batches { value: -1 }", "max_enqueued_batches must be positive; was -1"),
        (
            "enable_large_batch_splitting { value: true } max_enqueued_batches { value: 0 }",
            "max_enqueued_batches must be positive; was 0",
        ),
        (
            "enable_large_batch_splitting { value: true } max_batch_size { value: 8 } max_execution_batch_size { value: 9 }",
            "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to max_execution_batch_size.",
        ),
        ("enable_large_batch_splitting { value: true } max_execution_batch_size { value: 0 }", "max_execution_batch_size must be positive"),
        (
            "allowed_batch_sizes: 8 max_batch_size { value: 10 }",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; expected 10",
        ),
        ("allowed_batch_sizes: 8", "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; expected 1000"),
        (
            "allowed_batch_sizes: [8, 8, 10] max_batch_size { value: 10 }",
            "allowed_batch_sizes entries must be monotonically increasing; were 8, 8, 10",
        ),
        ("allowed_batch_sizes: [0, 10] max_batch_size { value: 10 }", "allowed_batch_sizes entries must be positive; were 0, 10"),
    ],
)
def test_an_impossible_value_is_refused_with_the_file_and_the_real_servers_text(text, refusal, tmp_path):
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        read(path)
    assert str(refused.value).startswith(f"--batching_parameters_file {path}: {refusal}")


def test_no_room_for_batches_is_room_for_one_as_it_has_always_been():
    assert BatchingParameters(max_enqueued_batches=0).max_enqueued_batches == 1


def test_without_splitting_a_batch_is_as_large_as_a_request():
    assert BatchingParameters(max_batch_size=64, max_execution_batch_size=8).max_execution_batch_size == 64
    assert BatchingParameters(max_batch_size=64, enable_large_batch_splitting=True).max_execution_batch_size == 64


@pytest.mark.parametrize("size, padded", [(1, 8), (8, 8), (9, 64), (64, 64), (65, 65)])
def test_a_batch_is_padded_to_the_next_allowed_size(size, padded):
    assert BatchingParameters(max_batch_size=64, allowed_batch_sizes=(8, 64)).padded_size(size) == padded
    assert BatchingParameters(max_batch_size=64).padded_size(size) == size
