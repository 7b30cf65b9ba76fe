"""The comparison itself: equal answers, and deviations that neither hide other differences nor outlive their reason."""

import pytest

from tests.conformance import deviations, outcomes, recording, wire
from tests.conformance.outcomes import DEVIATION, DIFFERENT, EMBEDDED, REAL, SAME, Deviation, Seen

_DEVIATIONS = {("s", "p"): Deviation("because", r"got 7$")}


@pytest.mark.parametrize(
    ("server", "difference", "verdict"),
    [
        (EMBEDDED, "expected 5, got 7", DEVIATION),
        (EMBEDDED, "expected 5, got 8", DIFFERENT),
        (EMBEDDED, "", DIFFERENT),
        (REAL, "expected 5, got 7", DIFFERENT),
        (REAL, "", SAME),
        ("host:1", "expected 5, got 7", DEVIATION),
        ("host:1", "expected 5, got 8", DIFFERENT),
        ("host:1", "", SAME),
    ],
)
def test_a_deviation_applies_only_to_its_server_and_pattern(server, difference, verdict):
    assert outcomes.judge(Seen("s", "p", difference), server, _DEVIATIONS).verdict == verdict


def _sum(**values):
    response = wire.response_type(wire.PREDICT)()
    response.outputs["sum"].dtype = 9
    for name, value in values.items():
        getattr(response.outputs["sum"], name).extend(value) if name != "tensor_content" else setattr(
            response.outputs["sum"], name, value
        )
    return wire.Answer("OK", "", response.SerializeToString())


def test_typed_fields_differ_from_content_and_a_missing_shape_from_an_empty_one():
    assert not wire.difference(wire.PREDICT, _sum(int64_val=[7]), _sum(int64_val=[7]))
    assert wire.difference(wire.PREDICT, _sum(int64_val=[7]), _sum(tensor_content=b"\7\0\0\0\0\0\0\0"))
    with_shape = wire.response_type(wire.PREDICT).FromString(_sum(int64_val=[7]).response)
    with_shape.outputs["sum"].tensor_shape.SetInParent()
    assert wire.difference(wire.PREDICT, _sum(int64_val=[7]), wire.Answer("OK", "", with_shape.SerializeToString()))


@pytest.mark.parametrize(
    "got",
    [
        wire.Answer("NOT_FOUND", "text {{function_node f_12}}{{node add}}"),
        wire.Answer("INTERNAL", "other text {{function_node f_12}}{{node add}}"),
        wire.Answer("INTERNAL", "text {{function_node f_12}}{{node mul}}"),
        wire.Answer("OK"),
    ],
)
def test_code_and_text_matter_but_not_the_numbers_of_traced_functions(got):
    expected = wire.Answer("INTERNAL", "text {{function_node f_7}}{{node add}}")
    assert wire.difference(wire.PREDICT, expected, got)
    assert not wire.difference(
        wire.PREDICT, expected, wire.Answer("INTERNAL", "text {{function_node f_12}}{{node add}}")
    )


def test_every_deviation_names_a_recorded_probe():
    probes = {(section, name) for section, content in recording.load().items() for name in content}
    assert {*deviations.DEVIATIONS, *deviations.NOT_RUN} <= probes
    assert not {*deviations.DEVIATIONS} & {*deviations.NOT_RUN}


def test_a_server_without_outcomes_counts_as_not_run():
    lines = outcomes.table({EMBEDDED: [outcomes.Outcome("s", "p", SAME)], REAL: []}, [("s", "p")]).splitlines()
    assert lines[2].split()[:4] == ["p", "same", "not", "run"]
    assert lines[-1] == "tensorflow_model_server: not run"


class _Stub:
    """A channel whose answer to every call is `response`."""

    def __init__(self, response: bytes):
        self._response = response

    def unary_unary(self, method):
        return lambda request, timeout, metadata: self._response


def test_a_state_with_a_text_that_is_not_utf_8_is_read():
    module = wire.apis().get_model_status
    response = module.GetModelStatusResponse()
    response.model_version_status.add(version=2, state=module.ModelVersionStatus.END).status.error_message = "bad ??"
    response.model_version_status[0].status.error_code = 3
    response.model_version_status.add(version=1, state=module.ModelVersionStatus.AVAILABLE)
    stub = _Stub(response.SerializeToString().replace(b"??", b"\xff\xfe"))
    assert wire.states(stub, "m") == [[1, wire.AVAILABLE, 0, ""], [2, wire.END, 3, "bad \\xff\\xfe"]]
