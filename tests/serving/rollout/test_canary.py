"""The result of comparing two versions: a defect of the canary, or a failure of the machine."""

from collections import Counter

import grpc
import pytest
import tensorflow as tf

from components import signatures
from components.errors import BitsumError, Refusal
from components.formats import request_logs
from components.task.transducer import ADDITION
from pipeline import cli
from serving import tensors
from serving.probing.report import Report
from serving.rollout import canary

pytestmark = pytest.mark.fast

_ABOUT_THE_VERSION = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "DATA_LOSS",
}


def compared(**counts) -> canary.Comparison:
    return canary.Comparison(Report(ADDITION, asked=9, right=9), Report(ADDITION, asked=9, **counts), None)


@pytest.mark.parametrize("code", [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_unanswered_questions_count_against_a_version_only_if_the_server_blames_it(code):
    comparison = compared(right=8, errors=Counter({code: 1}), first_error=f"it said {code}")
    if code in _ABOUT_THE_VERSION:
        comparison.check_answered()
        assert code in comparison.complaint(2.0)
        return
    with pytest.raises(BitsumError, match=f"answered 8 of 9 questions.*it said {code}") as caught:
        comparison.check_answered()
    assert not isinstance(caught.value, Refusal) and caught.value.exit_code == 1


def test_a_wrong_answer_is_a_finding_whatever_else_failed():
    comparison = compared(right=7, wrong=[{"a": "1"}], wrong_count=1, errors=Counter({"UNAVAILABLE": 1}))
    comparison.check_answered()
    assert "wrongly" in comparison.complaint(2.0)


def test_two_right_versions_raise_no_complaint():
    comparison = compared(right=9)
    comparison.check_answered()
    assert comparison.complaint(2.0) is None


def logged(folder, *states):
    """A request log: one Predict request for each element of `states`, with that state if it is not None."""
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "requests-1-1.tfrecords")) as writer:
        for state in states:
            log = request_logs.prediction_log()()
            log.predict_log.request.model_spec.signature_name = signatures.STEP
            if state is not None:
                log.predict_log.request.inputs[signatures.STATE].CopyFrom(tensors.float_tensor(state, (1, len(state))))
            writer.write(log.SerializeToString())
    return folder


@pytest.mark.parametrize("states", [[None], [(0.0, 0.0)], [(0.5, 0.5), None]])
def test_a_request_without_a_state_can_be_replayed(states, tmp_path):
    canary.check_requests(logged(tmp_path / "log", *states))


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([], "no request to replay, it holds none; give another"),
        ([(0.5, 0.5)] * 2, "no request to replay, its first 2 requests all carry the state"),
    ],
)
def test_a_log_without_a_request_to_replay_is_refused_before_any_call(states, words, tmp_path, capsys):
    folder = logged(tmp_path / "log", *states)
    arguments = ["rollout", f"--requests={folder}", "--server=127.0.0.1:1", f"--config_file={tmp_path}/none"]
    assert cli.main(arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bitsum: --requests {folder}: ") and words in line


def test_requests_that_both_versions_refuse_compare_nothing():
    comparison = compared(right=9)
    comparison.recorded = canary.Recorded(asked=3, refused=2)
    comparison.check_answered()
    comparison.recorded = canary.Recorded(asked=3, refused=3)
    with pytest.raises(BitsumError, match="both versions refuse all 3 recorded requests"):
        comparison.check_answered()
    # A finding about the version comes first.
    comparison = compared(right=8, wrong=[{"a": "1"}], wrong_count=1)
    comparison.recorded = canary.Recorded(asked=3, refused=3)
    comparison.check_answered()
    assert "wrongly" in comparison.complaint(2.0)


class _Failure(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode):
        self.code, self.details = lambda: code, lambda: "details"


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: code.name
)
def test_a_failed_recorded_request_is_compared_unless_the_machine_failed(code):
    def predict(request, timeout):
        raise _Failure(code)

    if code.name in _ABOUT_THE_VERSION:
        assert canary.answer(predict, None) == f"{code.name}: details"
        return
    with pytest.raises(BitsumError, match=f"was not answered: details .{code.name}.") as caught:
        canary.answer(predict, None)
    assert caught.value.exit_code == 1
