"""Rules of TensorFlow Serving 2.16.1 beyond the recording, each with the source file of the rule.

The files are below tensorflow_serving/ of https://github.com/tensorflow/serving, or tensorflow/ of
https://github.com/tensorflow/tensorflow where the name begins with `core/` or `cc/`.
"""

import struct
import subprocess
import sys

import pytest

from tests.conformance import models, recording, replay, servers, wire

_SPECIFIC = "model_version_policy { specific { versions: 1 versions: 2 } }"
_LABELS = (
    'version_labels { key: "stable" value: 1 } version_labels { key: "" value: 2 '
    '} version_labels { key: "名" value: 2 }'
)
_LIMIT = 1024


@pytest.fixture(scope="module", params=[program.name for program in (servers.embedded(), servers.real()) if program])
def server(request, shared_folder, tmp_path_factory):
    """A server with the models `add` (versions 1 and 2, labels) and `kinds`, and `spare` for reloads."""
    program = {p.name: p for p in (servers.embedded(), servers.real()) if p}[request.param]
    made, folder = models.make(shared_folder), tmp_path_factory.mktemp("beyond")
    subprocess.run(
        [sys.executable, recording.FOLDER / "make_kinds.py", folder / "kinds"], check=True, capture_output=True
    )
    for version in (1, 2, 3):
        models.put(made, version, folder / "add")
        models.put(made, version, folder / "spare")
    config = servers.config_file(folder, *_entries(folder))
    with servers.running(program, folder, config, "--allow_version_labels_for_unavailable_models=true") as running:
        running.folder = folder
        yield running


def _entries(folder, *more):
    return (
        servers.entry("add", folder / "add", f"{_SPECIFIC} {_LABELS}"),
        servers.entry("kinds", folder / "kinds"),
        *more,
    )


def ask(server, method, request):
    request = request if isinstance(request, bytes) else request.SerializeToString()
    answer = server.call(method, request)
    return answer if answer.code == "OK" else (answer.code, answer.message)


def predict(name="add", version=None, label=None, signature="", inputs=None, outputs=()):
    request = wire.request_type(wire.PREDICT).FromString(models.adding(name, version, label))
    request.model_spec.signature_name = signature
    request.output_filter.extend(outputs)
    if inputs is not None:
        request.ClearField("inputs")
        for alias, tensor in inputs.items():
            request.inputs[alias].CopyFrom(tensor)
    return request


def tensor(dtype, shape=(), **values):
    made = wire.apis().tensor.TensorProto(dtype=getattr(wire.apis().types, f"DT_{dtype}"), **values)
    made.tensor_shape.SetInParent()
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


def rows(*numbers):
    made = wire.apis().tensor.TensorProto()
    models.digits(made, numbers)
    return made


def _size(sent, extra="", missing="", wanted="a,b"):
    counts = f"{len(sent.split(',')) if sent else 0}!={len(wanted.split(','))}"
    sets = f"len({{{sent}}}) != len({{{wanted}}}). Sent extra: {{{extra}}}. Missing but required: {{{missing}}}."
    return f"input size does not match signature: {counts} {sets}"


def _output(name):
    return f"output tensor alias not found in signature: {name} Outputs expected to be in the set {{sum,ver}}."


def _no_signature(name):
    return f'Serving signature key "{name}" not found.'


def _not_found(wanted):
    return f"Servable not found for request: {wanted}"


def _label(name):
    return f"Unrecognized servable version label: {name}"


_ONE = rows((1,))
_INVALID, _MISSING, _PRECONDITION = "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"
_FIRST, _LAST = -(2**63), 2**63 - 1
_NO_NAME = "ModelSpec has no name specified."


def _unreadable(alias, sent, name="add", signature=""):
    inputs = ({"a": _ONE, "b": _ONE} if name == "add" else {}) | {alias: sent}
    return predict(name, signature=signature, inputs=inputs), _INVALID, f"tensor parsing error: {alias}"


def _mistyped(signature, wanted, given, sent):
    asked = predict("kinds", signature=signature, inputs={"x": sent})
    return asked, _INVALID, f"Expects arg[0] to be {wanted} but {given} is provided"


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        # servables/tensorflow/predict_util.cc
        (predict(inputs={}), _INVALID, _size("", missing="a,b")),
        (predict(inputs={"a": _ONE, "b": _ONE, "c": _ONE}), _INVALID, _size("a,b,c", extra="c")),
        (predict(inputs={"x": _ONE}), _INVALID, _size("x", extra="x", missing="a,b")),
        (predict(inputs={"x": _ONE, "y": _ONE, "a": _ONE, "b": _ONE}), _INVALID, _size("a,b,x,y", extra="x,y")),
        (predict(signature="slow"), _INVALID, _size("a,b", extra="a,b", missing="n", wanted="n")),
        (predict(outputs=["sum", "nope", "sum"]), _INVALID, _output("nope")),
        (predict(outputs=["ver", "sum", "ver"]), _INVALID, "duplicate output tensor alias: ver"),
        (predict(signature="名"), _PRECONDITION, _no_signature("名")),
        (predict(signature="nope", outputs=["nope"], inputs={}), _PRECONDITION, _no_signature("nope")),
        # core/aspired_versions_manager.cc, core/basic_manager.cc
        (predict("名"), _MISSING, _not_found("Latest(名)")),
        (predict("a b", version=3), _MISSING, _not_found("Specific(a b, 3)")),
        (predict("add", version=-1), _MISSING, _not_found("Specific(add, -1)")),
        (predict("add", version=_FIRST), _MISSING, _not_found(f"Specific(add, {_FIRST})")),
        (predict("add", version=_LAST), _MISSING, _not_found(f"Specific(add, {_LAST})")),
        (predict("add", version=3), _MISSING, _not_found("Specific(add, 3)")),
        # model_servers/server_core.cc
        (predict("kinds", label="stable"), _INVALID, _label("stable")),
        (predict("", label="stable"), _INVALID, _NO_NAME),
        (predict("", version=1), _INVALID, _NO_NAME),
        (predict("add", label="1"), _INVALID, _label("1")),
        (predict("add", label="ü\n"), _INVALID, _label("ü\n")),
        # cc/saved_model/util.cc, core/framework/tensor.cc, core/framework/tensor_shape.cc
        _unreadable("a", tensor("INT64", (1, 1), tensor_content=b"\0" * 16)),
        _unreadable("b", tensor("INT64", (-1, 1), int64_val=[1])),
        _unreadable("a", tensor("INT64", (1,) * 255, int64_val=[1])),
        _unreadable("a", tensor("INT64", (2**62, 2), int64_val=[1])),
        _unreadable("a", tensor("INT64", (2**62, 4, 0))),
        _unreadable("x", tensor("STRING", (2,), tensor_content=b"\x01"), "kinds", "string"),
        # core/common_runtime/direct_session.cc
        _mistyped("float32", "float", "double", tensor("DOUBLE", (), double_val=[1])),
        _mistyped("bfloat16", "bfloat16", "half", tensor("HALF", (), half_val=[1])),
    ],
)
def test_refused_predictions(server, request_, code, text):
    assert ask(server, wire.PREDICT, request_) == (code, text)


def test_dimensions_after_a_zero_reach_the_graph(server):
    """core/framework/tensor_shape.cc: IsValid multiplies in order. The embedded server's own limit comes first."""
    asked = predict("kinds", signature="int64", inputs={"x": tensor("INT64", (0, 2**62, 4))})
    answer = ask(server, wire.PREDICT, asked)
    if server.program.embedded:
        code, text = answer
        assert code == "RESOURCE_EXHAUSTED" and text.startswith(f"tensor x of shape [0, {2**62}, 4] needs more than ")
    else:
        assert dict(wire.decoded(wire.PREDICT, answer.response).outputs) == {"y": tensor("INT64", (0, 2**62, 4))}


def test_an_error_text_is_truncated_to_1024_bytes(server):
    """model_servers/grpc_status_util.cc"""
    text = f'Serving signature key "{"x" * 2000}" not found.'
    assert ask(server, wire.PREDICT, predict(signature="x" * 2000)) == (_PRECONDITION, text[:_LIMIT] + "...TRUNCATED")
    fitting = "x" * (_LIMIT - len('Serving signature key "" not found.'))
    assert ask(server, wire.PREDICT, predict(signature=fitting)) == (
        _PRECONDITION,
        f'Serving signature key "{fitting}" not found.',
    )


_DTYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}


@pytest.mark.parametrize(
    # `back` is None if the values come back unchanged.
    ("signature", "shape", "sent", "back"),
    [
        ("float32", (2,), {"tensor_content": struct.pack("<2f", 1.5, -0.0)}, {"float_val": [1.5, -0.0]}),
        ("float32", (), {"float_val": [float("inf")]}, None),
        ("float64", (1, 1), {"double_val": [0.1]}, None),
        ("float16", (3,), {"half_val": [0x3C00, 0xFC00]}, {"half_val": [0x3C00, 0xFC00, 0xFC00]}),
        ("float16", (1,), {"tensor_content": b"\x00\x3c"}, {"half_val": [0x3C00]}),
        ("bfloat16", (2,), {"half_val": [0x3F80, 0x4000]}, None),
        ("int8", (2,), {"int_val": [-128, 127]}, None),
        ("int8", (2,), {"tensor_content": b"\x80\x7f"}, {"int_val": [-128, 127]}),
        ("uint8", (2,), {"int_val": [300, -1]}, {"int_val": [44, 255]}),
        ("int16", (1,), {"int_val": [-5]}, None),
        ("uint16", (1,), {"int_val": [65535]}, None),
        ("int32", (2, 1), {"tensor_content": struct.pack("<2i", -1, 9)}, {"int_val": [-1, 9]}),
        ("int64", (2,), {"int64_val": [_FIRST, _LAST]}, None),
        ("uint32", (1,), {"uint32_val": [2**32 - 1]}, None),
        ("uint64", (), {"uint64_val": [2**64 - 1]}, None),
        ("uint64", (1,), {"tensor_content": b"\xff" * 8}, {"uint64_val": [2**64 - 1]}),
        ("bool", (3,), {"bool_val": [True, False]}, {"bool_val": [True, False, False]}),
        ("bool", (2,), {"tensor_content": b"\x01\x00"}, {"bool_val": [True, False]}),
        ("string", (), {"string_val": [b"\xff\x00"]}, None),
        ("string", (2,), {}, {"string_val": [b"", b""]}),
        ("string", (2,), {"string_val": ["名".encode()]}, {"string_val": ["名".encode()] * 2}),
        ("string", (2,), {"tensor_content": b"\x01\x02abb"}, {"string_val": [b"a", b"bb"]}),
        ("complex64", (1,), {"scomplex_val": [1.5, -2]}, None),
        ("complex64", (2,), {"scomplex_val": [1, 2]}, {"scomplex_val": [1, 2, 1, 2]}),
        ("complex128", (), {"dcomplex_val": [1, 2]}, None),
        ("float32", (0,), {}, None),
        ("string", (3, 0, 2), {}, None),
        # The content and values of an empty tensor are ignored.
        ("int64", (0, 2), {"tensor_content": b"\0" * 8}, {}),
        ("int64", (0,), {"int64_val": [1, 2]}, {}),
        ("int64", (1,), {"int64_val": [1], "tensor_content": struct.pack("<q", 3)}, {"int64_val": [3]}),
        ("int64", (), {}, {"int64_val": [0]}),
        ("int64", (1,) * 20, {"int64_val": [7]}, None),
        ("int64", (), {"version_number": 7, "int64_val": [7]}, {"int64_val": [7]}),
    ],
)
def test_every_dtype_comes_back_in_its_typed_field(server, signature, shape, sent, back):
    """core/framework/tensor.cc: FromProto and AsProtoField."""
    kind = _DTYPES.get(signature, signature.upper())
    asked = predict("kinds", signature=signature, inputs={"x": tensor(kind, shape, **sent)})
    answer = ask(server, wire.PREDICT, asked)
    assert isinstance(answer, wire.Answer), answer
    response = wire.decoded(wire.PREDICT, answer.response)
    assert dict(response.outputs) == {"y": tensor(kind, shape, **(sent if back is None else back))}
    assert (response.model_spec.name, response.model_spec.version.value, response.model_spec.signature_name) == (
        "kinds",
        1,
        signature,
    )


def test_the_last_of_version_and_label_counts(server):
    """apis/model.proto: a oneof; the sizes of the messages are small enough for lengths of one byte."""
    by_version = wire.spec_request(wire.PREDICT, "add", version=2).model_spec.SerializeToString()
    label = wire.spec_request(wire.PREDICT, "", label="stable").model_spec.SerializeToString()
    inputs = models.adding()[len(wire.spec_request(wire.PREDICT, "m").SerializeToString()) :]
    for spec, version in ((by_version + label, 1), (label + by_version, 2)):
        answer = ask(server, wire.PREDICT, b"\x0a" + bytes([len(spec)]) + spec + inputs)
        assert wire.decoded(wire.PREDICT, answer.response).model_spec.version.value == version


@pytest.mark.parametrize(("label", "version"), [("stable", 1), ("", 2), ("名", 2)])
def test_any_text_can_be_a_label(server, label, version):
    """model_servers/server_core.cc"""
    answer = ask(server, wire.PREDICT, predict("add", label=label))
    response = wire.decoded(wire.PREDICT, answer.response)
    assert (response.model_spec.version.value, response.model_spec.version_label) == (version, "")


@pytest.mark.parametrize(
    ("method", "name", "choice", "code", "text"),
    [
        # servables/tensorflow/get_model_metadata_impl.cc
        (wire.METADATA, "add", {"version": 3}, _MISSING, _not_found("Specific(add, 3)")),
        (wire.METADATA, "nope", {"label": "x"}, _INVALID, _label("x")),
        (wire.METADATA, "", {"label": "x"}, _INVALID, _NO_NAME),
        # model_servers/get_model_status_impl.cc
        (wire.STATUS, "add", {"version": 0}, _MISSING, "Could not find version 0 of model add"),
        (wire.STATUS, "", {"version": 1}, _MISSING, "Could not find version 1 of model "),
        (wire.STATUS, "add", {"version": _FIRST}, _MISSING, f"Could not find version {_FIRST} of model add"),
        (wire.STATUS, "名", {"label": "x"}, _MISSING, "Could not find any versions of model 名"),
    ],
)
def test_other_refused_calls(server, method, name, choice, code, text):
    assert ask(server, method, wire.spec_request(method, name, **choice)) == (code, text)


def test_the_fields_of_metadata_are_checked_before_the_name(server):
    """servables/tensorflow/get_model_metadata_impl.cc"""
    request = wire.spec_request(wire.METADATA, "")
    request.metadata_field.append("nope")
    assert ask(server, wire.METADATA, request) == (_INVALID, "Metadata field nope is not supported")
    request.ClearField("metadata_field")
    assert ask(server, wire.METADATA, request) == (
        _INVALID,
        "GetModelMetadataRequest must specify at least one metadata_field",
    )


def _spare(folder, more=""):
    return servers.entry("spare", folder / "spare", more)


def _wire(server):
    return replay.Wire.of(server, server.folder)


@pytest.mark.parametrize(
    ("policy", "loaded"),
    [
        ("latest { num_versions: 2 }", [2, 3]),
        ("latest { num_versions: 4294967295 }", [1, 2, 3]),
        ("specific { versions: 3 versions: 1 }", [1, 3]),
        ("specific { versions: 2 versions: -7 versions: 9223372036854775807 }", [2]),
        ("all { }", [1, 2, 3]),
        ("latest { }", [3]),
    ],
)
def test_policies(server, policy, loaded):
    """sources/storage_path/file_system_storage_path_source.cc; every other version ends without an error."""
    to = _wire(server)
    answer = replay.reload(to, *_entries(server.folder, _spare(server.folder, f"model_version_policy {{ {policy} }}")))
    assert answer.code == "OK", answer

    def available():
        return [state[0] for state in wire.states(server.stub, "spare") if state[1] == wire.AVAILABLE]

    assert servers.until(lambda: available() == loaded, 30), available()
    rest = [state for state in wire.states(server.stub, "spare") if state[0] not in loaded]
    assert servers.until(lambda: all(state[1:] == [wire.END, 0, ""] for state in rest), 30), rest
    assert ask(server, wire.PREDICT, predict("add")).code == "OK"


def test_a_folder_with_a_plus_sign_is_no_version(server):
    """core/platform/numbers.cc: safe_strto64 allows blanks, a minus sign and leading zeros."""
    folder, made = server.folder / "odd", server.folder / "spare"
    for name in ("+5", " 4", "-7", "003"):
        models.put(made, 3, folder, name)
    odd = servers.entry("odd", folder, "model_version_policy { all { } }")
    assert replay.reload(_wire(server), *_entries(server.folder, odd)).code == "OK"

    def available():
        return [state[0] for state in wire.states(server.stub, "odd") if state[1] == wire.AVAILABLE]

    assert servers.until(lambda: available() == [-7, 3, 4], 30), available()


def test_a_model_with_a_logging_config_is_refused(server):
    """model_servers/server_core.cc, core/server_request_logger.cc: no collector is registered."""
    logged = _spare(server.folder, 'logging_config { log_collector_config { type: "x" } }')
    answer = replay.reload(_wire(server), *_entries(server.folder, logged))
    assert (answer.code, answer.message) == (_INVALID, "No request-logger-creator provided.")
    if server.program.embedded:
        # The real server has kept this config, and refuses all later ones.
        assert replay.reload(_wire(server), *_entries(server.folder)).code == "OK"


def test_two_models_with_labels_of_one_name(server):
    """model_servers/server_core.cc: labels belong to a model."""
    to = _wire(server)
    spare = _spare(server.folder, "model_version_policy { specific { versions: 2 versions: 3 } }")
    assert replay.reload(to, *_entries(server.folder, spare)).code == "OK"
    states = {"spare": [[2, wire.AVAILABLE, 0, ""], [3, wire.AVAILABLE, 0, ""]]}
    assert not replay.settle(to, states, {"spare": [[1, wire.END, 0, ""]]})
    labelled = spare + 'version_labels { key: "stable" value: 3 } version_labels { key: "stable2" value: 3 }'
    assert replay.reload(to, *_entries(server.folder, labelled)).code == "OK"
    for name, label, version in (("add", "stable", 1), ("spare", "stable", 3), ("spare", "stable2", 3)):
        response = wire.decoded(wire.PREDICT, ask(server, wire.PREDICT, predict(name, label=label)).response)
        assert response.model_spec.version.value == version
    assert ask(server, wire.PREDICT, predict("spare", label="canary")) == (
        _INVALID,
        "Unrecognized servable version label: canary",
    )
