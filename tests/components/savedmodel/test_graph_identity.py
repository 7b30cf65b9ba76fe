"""An export that was tampered with is noticed, and the place is named; exports of the same cell are the same graph."""

import random
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow.core.protobuf import saved_model_pb2

from components.errors import BitsumError
from components.model import export
from components.model.gru import GRU
from components.savedmodel import canonical_graph, graph_identity
from tests.support import certified

pytestmark = [pytest.mark.fast, pytest.mark.slow]

BODY = "function while_body: node_def"
# The state that the loop's body passes to its next iteration.
LAST_STATE = "while/add_32:z:0"


@pytest.fixture
def tampered(certified_model, tmp_path):
    """tampered(change, ...) -> the folder of the model with its MetaGraphDef changed."""

    def make(*changes):
        folder = tmp_path / f"tampered-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        shutil.copytree(certified_model / "variables", folder / "variables")
        model = saved_model_pb2.SavedModel.FromString((certified_model / "saved_model.pb").read_bytes())
        for change in changes:
            change(model.meta_graphs[0])
        (folder / "saved_model.pb").write_bytes(model.SerializeToString())
        return folder

    return make


def function(model, name):
    """The function `name`, without the wrapper that TensorFlow adds, or e.g. "step/body", the body of its loop."""
    name, _, attribute = name.partition("/")
    found = next(
        one
        for one in model.graph_def.library.function
        if re.fullmatch(rf"(__inference_+)?{name}_\d+", one.signature.name)
    )
    if attribute:
        called = next(node for node in found.node_def if node.name == "while").attr[attribute].func.name
        found = next(one for one in model.graph_def.library.function if one.signature.name == called)
    return found


def node(model, place):
    """The node at "function:node"; without a function, that of the main graph."""
    owner, _, name = place.rpartition(":")
    nodes = function(model, owner).node_def if owner else model.graph_def.node
    return next(one for one in nodes if one.name == name)


def tensor(model, place):
    return node(model, place).attr["value"].tensor


def swap_inputs(first, second, index=0):
    def change(model):
        one, other = node(model, first), node(model, second)
        one.input[index], other.input[index] = other.input[index], one.input[index]

    return change


def exchange(items, first, second):
    """Exchanges two values of a repeated field."""
    one, other = list(items).index(first), list(items).index(second)
    items[one], items[other] = second, first


def swap_for_the_loop(model):
    """Swap the arguments U_z and U_r of the loop's body, where the loop is called."""
    body, loop = function(model, "step/body"), node(model, "step:while")
    arguments = [argument.name for argument in body.signature.input_arg]
    z, r = (arguments.index(node(model, f"step/body:while/{name}").input[1]) for name in ("matmul", "matmul_1"))
    exchange(loop.input, loop.input[z], loop.input[r])


def swap_for_a_signature(model):
    exchange(node(model, model.signature_def["step"].outputs["sum"].name.partition(":")[0]).input, "U_z", "U_r")


def swap_restored_variables(model):
    exchange(node(model, model.saver_def.restore_op_name).input, "U_z", "U_r")


def set_op(place, op):
    return lambda model: setattr(node(model, place), "op", op)


def add_node(nodes, name, op, inputs=(), **attributes):
    added = nodes.add(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        if key == "value":
            added.attr[key].tensor.CopyFrom(tf.make_tensor_proto(value))
            added.attr["dtype"].type = added.attr[key].tensor.dtype
        else:
            added.attr[key].type = value.as_datatype_enum
    return added


def push_a_state(model):
    """A constant that is added to the next state."""
    body = function(model, "step/body")
    add_node(body.node_def, "push/y", "Const", value=np.float32(1e-6))
    add_node(body.node_def, "push", "AddV2", [LAST_STATE, "push/y:output:0"], T=tf.float32)
    node(model, "step/body:while/Identity_3").input[0] = "push:z:0"


def plant_a_bomb(model, place="step/body", turns=1):
    """The state becomes zero at the end of each iteration of the loop, which is eight steps, after the first `turns` of
    a request."""
    nodes = function(model, place).node_def
    add_node(nodes, "bomb/limit", "Const", value=np.int32(turns))
    add_node(nodes, "bomb/Less", "Less", ["while_placeholder", "bomb/limit:output:0"], T=tf.int32)
    add_node(nodes, "bomb/Cast", "Cast", ["bomb/Less:z:0"], SrcT=tf.bool, DstT=tf.float32)
    add_node(nodes, "bomb/mul", "Mul", [LAST_STATE, "bomb/Cast:y:0"], T=tf.float32)
    node(model, f"{place}:while/Identity_3").input[0] = "bomb/mul:z:0"
    node(model, f"{place}:while/stack").input[7] = "bomb/mul:z:0"


def bake_in_weights(model):
    read = node(model, "step:ReadVariableOp_1")
    read.Clear()
    read.MergeFrom(type(read)(name="ReadVariableOp_1", op="Const"))
    read.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.zeros((8, 8), np.float32)))
    read.attr["dtype"].type = tf.float32.as_datatype_enum


def bake_in_an_input(model):
    """Other weights, that no variable holds, as a default of the session's feed."""
    placeholder = node(model, "step_state")
    placeholder.op = "PlaceholderWithDefault"


def swap_restored_names(model):
    names = tensor(model, "_traced_restore:RestoreV2/tensor_names").string_val
    exchange(names, b"U_z/.ATTRIBUTES/VARIABLE_VALUE", b"U_r/.ATTRIBUTES/VARIABLE_VALUE")


def swap_shared_names(model):
    one, other = node(model, "U_z").attr["shared_name"], node(model, "U_r").attr["shared_name"]
    one.s, other.s = other.s, one.s


def alias_a_variable(model):
    node(model, "U_z").attr["shared_name"].s = b"U_r"


def initialize_with_an_assignment(model):
    """The initialization runs after the restore operation."""
    nodes = model.graph_def.node
    add_node(nodes, "zeros", "Const", value=np.zeros((8, 8), np.float32))
    node(model, "NoOp").op = "AssignVariableOp"
    node(model, "NoOp").input.extend(["U_z", "zeros"])


def initialize_elsewhere(model):
    nodes = model.graph_def.node
    add_node(nodes, "zeros", "Const", value=np.zeros((8, 8), np.float32))
    add_node(nodes, "assign", "AssignVariableOp", ["U_z", "zeros"], dtype=tf.float32)
    model.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "assign"


def main_op(model):
    model.collection_def["saved_model_main_op"].node_list.value[:] = [
        model.saver_def.save_tensor_name.partition(":")[0]
    ]


def add_a_bare_function(model):
    added = model.object_graph_def.nodes.add().bare_concrete_function
    added.concrete_function_name = function(model, "step").signature.name


def add_a_function(model):
    model.object_graph_def.nodes.add().function.concrete_functions.append(function(model, "step").signature.name)


def swap_outputs(model):
    outputs = model.signature_def["add_bits"].outputs
    outputs["sum"].name = model.signature_def["serving_default"].outputs["sum"].name


def return_the_input(model):
    node(model, "step:Identity_4").input[0] = "state"


def return_the_input_in_the_wrapper(model):
    wrapper = function(model, "signature_wrapper_step")
    sources = {
        key: node(model, f"signature_wrapper_step:{value.split(':')[0]}").input[0] for key, value in wrapper.ret.items()
    }
    (place,) = [key for key, source in sources.items() if source.endswith(":1")]
    wrapper.ret[place] = "state"


def call_another(model):
    node(model, "signature_wrapper_on_bits:StatefulPartitionedCall").attr["f"].func.name = function(
        model, "step"
    ).signature.name


def other_body(model):
    """Both loops' bodies have the same nodes; the one of another function is changed and called."""
    plant_a_bomb(model, "on_bits/body")
    node(model, "step:while").attr["body"].func.name = function(model, "on_bits/body").signature.name


def function_of_an_operations_name(model):
    added = model.graph_def.library.function.add()
    added.CopyFrom(function(model, "step/cond"))
    added.signature.name = "Tanh"


def implemented_elsewhere(model):
    """TensorFlow's optimizer may replace a function by another that claims to implement the same."""
    function(model, "on_bits").attr["api_implements"].s = b"adder"


def bfloat16_session(model):
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = 1
    node(model, "signature_wrapper_step:StatefulPartitionedCall").attr["config_proto"].s = config.SerializeToString()


def bind_other_variables(model):
    for name, concrete in model.object_graph_def.concrete_functions.items():
        if "step" in name:
            concrete.bound_inputs[0], concrete.bound_inputs[2] = concrete.bound_inputs[2], concrete.bound_inputs[0]


def float_constant(place, value):
    def change(model):
        assert list(tensor(model, place).float_val) != [value]
        tensor(model, place).float_val[:] = [value]

    return change


def int_constant(place, value):
    def change(model):
        constant = tensor(model, place)
        constant.CopyFrom(
            tf.make_tensor_proto(
                value, tf.dtypes.as_dtype(constant.dtype), [dim.size for dim in constant.tensor_shape.dim]
            )
        )

    return change


TAMPERINGS = {
    "z reversed": (
        swap_inputs("step/body:while/mul_1", "step/body:while/mul_2"),
        f'{BODY} {{ name: "while/mul_1" op: "Mul" input: "while/Sigmoid:y:0"',
    ),
    "tanh a sigmoid": (set_op("step/body:while/Tanh", "Sigmoid"), f'{BODY} {{ name: "while/Tanh" op: "Sigmoid"'),
    "a constant on a state": (push_a_state, f'{BODY} {{ name: "push/y" op: "Const"'),
    "2 - z": (float_constant("step/body:while/sub/x", 2.0), "float_val: 2.0 } } } } (only in the model)"),
    "baked in weights": (bake_in_weights, 'step: node_def { name: "ReadVariableOp_1" op: "Const"'),
    "a default fed": (bake_in_an_input, 'main graph: node { name: "step_state" op: "PlaceholderWithDefault"'),
    "U_z and U_r swapped in the body": (
        swap_inputs("step/body:while/matmul", "step/body:while/matmul_1", 1),
        f'{BODY} {{ name: "while/matmul" op: "MatMul" input: "argument 3" input: "argument 10"',
    ),
    "U_z and U_r swapped for the loop": (
        swap_for_the_loop,
        'input: "ReadVariableOp_4:value:0" input: "ReadVariableOp_1:value:0"',
    ),
    "U_z and U_r swapped for a signature": (swap_for_a_signature, '"U_r" input: "b_z" input: "W_r" input: "U_z"'),
    "restored names swapped": (swap_restored_names, "restoring the variables: U_z gets U_r/.ATTRIBUTES/VARIABLE_VALUE"),
    "restored variables swapped": (
        swap_restored_variables,
        "restoring the variables: U_r gets U_z/.ATTRIBUTES/VARIABLE_VALUE",
    ),
    "restored values swapped": (
        swap_inputs("_traced_restore:AssignVariableOp_1", "_traced_restore:AssignVariableOp_4", 1),
        "restoring the variables: U_z gets U_r/.ATTRIBUTES/VARIABLE_VALUE",
    ),
    "restored and negated": (set_op("_traced_restore:Identity_1", "Neg"), "Identity_1 (Neg) changes what is restored"),
    "shared names swapped": (swap_shared_names, 'value { s: "U_z" } } } (only in the model)'),
    "a variable that is another": (alias_a_variable, 'value { s: "U_r" } } } (only in the model)'),
    "state handed back": (return_the_input, 'step: node_def { name: "Identity_4" op: "Identity" input: "argument 2"'),
    "state handed back by the wrapper": (
        return_the_input_in_the_wrapper,
        'signature_wrapper_step: ret { key: "result 1" value: "argument 2" } (only in the model)',
    ),
    "another function called": (call_another, '{ name: "function step" } } } } (only in the model)'),
    "another body called": (other_body, f'{BODY} {{ name: "bomb/limit" op: "Const"'),
    "another output": (swap_outputs, 'outputs { key: "sum" value { name: "StatefulPartitionedCall_2:1"'),
    "logits >= 0": (set_op("step:Greater", "GreaterEqual"), 'step: node_def { name: "Greater" op: "GreaterEqual"'),
    "logits > 1e-9": (float_constant("step:Greater/y", 1e-9), "float_val: 1e-09 } } } } (only in the model)"),
    "the mask's constant": (
        int_constant("serving_default:SequenceMask/Const_1", 2),
        "int_val: 2 } } } } (only in the model)",
    ),
    "a time bomb": (plant_a_bomb, f'{BODY} {{ name: "bomb/limit" op: "Const"'),
    "an assignment at the start": (
        initialize_with_an_assignment,
        'main graph: node { name: "NoOp" op: "AssignVariableOp"',
    ),
    "an assignment by signature": (
        initialize_elsewhere,
        'outputs { key: "__saved_model_init_op" value { name: "assign"',
    ),
    "another main operation": (main_op, '"saved_model_main_op" value { node_list { value: "StatefulPartitionedCall_4"'),
    "a function that is an operation": (function_of_an_operations_name, "Tanh: arg_attr {"),
    "an alternative implementation": (
        implemented_elsewhere,
        'on_bits: attr { key: "api_implements" value { s: "adder" } } (only in the model)',
    ),
    "a session in bfloat16": (bfloat16_session, r'key: "config_proto" value { s: "R\005R\003\370\001\001" }'),
    "another device": (
        lambda model: setattr(node(model, "step/body:while/matmul"), "device", "/device:TPU:0"),
        'input: "argument 9" device: "/device:TPU:0"',
    ),
    "no wait for a check": (
        lambda model: node(model, "step:NoOp").input.remove("^cond"),
        'step: node_def { name: "NoOp" op: "NoOp"',
    ),
    "a function more": (
        lambda model: model.graph_def.library.function.add().signature.MergeFrom(
            type(function(model, "step").signature)(name="more")
        ),
        "more: signature { } (only in the model)",
    ),
    "other tags": (lambda model: model.meta_info_def.tags.append("gpu"), 'tags: "serve" tags: "gpu"'),
    "another producer": (
        lambda model: setattr(model.graph_def.versions, "producer", 20),
        "main graph: versions { producer: 20 ",
    ),
    "a sparse input": (
        lambda model: model.signature_def["step"].inputs["a"].coo_sparse.SetInParent(),
        'key: "a" value { dtype: DT_INT64 tensor_shape { dim { size: -1 } dim { size: -1 } } coo_sparse { }',
    ),
    "no file name to save to": (
        lambda model: model.saver_def.ClearField("filename_tensor_name"),
        'model: saver_def { save_tensor_name: "StatefulPartitionedCall',
    ),
    "a collection of bytes": (
        lambda model: model.collection_def["more"].bytes_list.value.append(b"x"),
        'key: "more" value { bytes_list { value: "x" } }',
    ),
    "a bare function for Python": (
        add_a_bare_function,
        'nodes { bare_concrete_function { concrete_function_name: "function step" } }',
    ),
    "a function for Python": (add_a_function, 'nodes { function { concrete_functions: "function step" } }'),
    "an asset": (lambda model: model.asset_file_def.add(filename="a"), 'model: asset_file_def { filename: "a" }'),
    "other variables for Python": (bind_other_variables, "bound_inputs: 3 bound_inputs: 2 bound_inputs: 1 "),
    "a field of the future": (lambda model: model.graph_def.MergeFromString(b"\xf2\xff\x03\x01x"), "no line shows"),
}


@pytest.fixture(scope="module")
def cell(certified_model) -> canonical_graph.Graph:
    """The expected graph."""
    return canonical_graph.Graph(certified_model)


def test_the_model_is_itself(certified_model, cell):
    assert graph_identity.differences(certified_model, cell) == []


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_noticed_and_named(tampered, certified_model, name, cell):
    change, words = TAMPERINGS[name]
    found = graph_identity.differences(tampered(change), cell)
    assert 1 <= len(found) <= graph_identity.MAX_DIFFERENCES and not any("\n" in line for line in found)
    assert any(words in line for line in found), found


def test_a_bomb_is_a_model_that_loads_and_goes_wrong(tampered, certified_model):
    """Shows that these tampered models load on a server, and so matter."""
    sound, bombed = (
        tf.saved_model.load(str(folder)).signatures["step"] for folder in (certified_model, tampered(plant_a_bomb))
    )
    ones, zero_state = tf.ones([1, 24], tf.int64), tf.zeros([1, 8])
    truth, wrong = (model(a=ones, b=ones, state=zero_state)["sum"].numpy()[0].tolist() for model in (sound, bombed))
    assert truth == [0] + [1] * 23
    assert wrong[:15] == truth[:15] and wrong[16] != truth[16]


def test_two_functions_or_nodes_of_one_name_are_refused(tampered, certified_model, cell):
    def same_function(model):
        added = model.graph_def.library.function.add()
        added.CopyFrom(function(model, "step/body"))
        added.node_def[-1].op = "Neg"

    def recursion(model):
        node(model, "step:while").attr["body"].func.name = function(model, "step").signature.name

    for change, words in [
        (same_function, "two functions have the same name"),
        (lambda model: model.graph_def.node.add(name="U_z"), "two nodes have the same name"),
        (lambda model: function(model, "step").node_def.add(name="a"), "uses a name twice"),
        (
            lambda model: node(model, "step:Greater").input.append("nowhere:0"),
            "something reads 'nowhere:0', which does not exist",
        ),
        (recursion, "is recursive, or nested too deeply"),
    ]:
        with pytest.raises(BitsumError, match=r"saved_model.pb is damaged: ") as refusal:
            graph_identity.differences(tampered(change), cell)
        assert words in str(refusal.value) and "\n" not in str(refusal.value)


def restore_a_slice(model):
    tensor(model, "_traced_restore:RestoreV2/shape_and_slices").string_val[0] = b"1 0,1"


def restore_in_a_circle(model):
    for identity in function(model, "_traced_restore").node_def:
        if identity.op == "Identity":
            identity.input[0] = f"{identity.name}:output:0"


def call_another_restore_function(model):
    node(model, model.saver_def.restore_op_name).attr["f"].func.name = "gone"


@pytest.mark.parametrize(
    "change, words",
    [
        (restore_a_slice, "RestoreV2 restores slices, or from another file"),
        (restore_in_a_circle, "leads nowhere"),
        (call_another_restore_function, "'gone' is missing"),
    ],
)
def test_a_restore_operation_that_is_not_understood_is_named(tampered, change, words):
    with pytest.raises(ValueError, match=words):
        graph_identity.restored_keys(canonical_graph.Graph(tampered(change)))


def test_a_result_with_a_canonical_name_does_not_hide_another(tampered, cell):
    """TensorFlow returns what `ret` has under the result's own name, and passes over any other key."""

    def return_an_operand(model):
        wrapper = function(model, "signature_wrapper_on_bits")
        [result] = [argument.name for argument in wrapper.signature.output_arg]
        wrapper.ret["result 0"] = wrapper.ret[result]
        wrapper.ret[result] = wrapper.signature.input_arg[0].name

    folder = tampered(return_an_operand)
    a, b = tf.constant([[1, 0, 1]], tf.int64), tf.constant([[1, 1, 1]], tf.int64)
    answer = tf.saved_model.load(str(folder)).signatures["add_bits"](a=a, b=b)
    assert answer["sum"].numpy().tolist() == [[1, 0, 1]]
    # Which of two keys came last was left to chance.
    for _ in range(5):
        with pytest.raises(BitsumError, match="does not return exactly its results"):
            graph_identity.differences(tampered(return_an_operand), cell)


def test_names_that_collide_once_calls_are_inlined_are_refused(tampered, cell):
    def rename(model):
        called = node(model, ":StatefulPartitionedCall").attr["f"].func.name
        inner = next(one for one in model.graph_def.library.function if one.signature.name == called).node_def[0].name
        model.graph_def.node.add(name=f"StatefulPartitionedCall/{inner}", op="NoOp")

    with pytest.raises(BitsumError, match="would occur twice once its calls are inlined"):
        graph_identity.differences(tampered(rename), cell)


def test_calls_that_double_at_each_level_are_refused_and_not_followed(tampered, cell):
    def double(model):
        below = function(model, "step").signature.name
        for level in range(30):
            added = model.graph_def.library.function.add()
            added.signature.name = f"level_{level}"
            for name in ("left", "right"):
                added.node_def.add(name=name, op="PartitionedCall").attr["f"].func.name = below
            below = added.signature.name

    with pytest.raises(BitsumError, match="its calls inlined exceed 100000 nodes"):
        graph_identity.differences(tampered(double), cell)


def test_fields_besides_the_graph_are_refused(tampered):
    folder = tampered()
    with open(folder / "saved_model.pb", "ab") as file:
        file.write(b"\x7a\x01x")
    with pytest.raises(BitsumError, match="fields besides its graph"):
        canonical_graph.Graph(folder)


def change_somewhere(message, draw):
    """Changes a scalar below `message` that a random walk leads to, or takes an empty message out; the names of the
    fields on the way."""
    field, value = draw.choice(message.ListFields())
    key = None
    if hasattr(value, "__len__") and not isinstance(value, str | bytes):
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        key = draw.choice(sorted(value) if is_map else range(len(value)))
    item = value if key is None else value[key]
    if isinstance(item, Message) and item.ListFields():
        return (field.name, *change_somewhere(item, draw))
    if isinstance(item, Message) and key is None:
        message.ClearField(field.name)
    elif isinstance(item, Message):
        del value[key]
    elif key is None:
        setattr(message, field.name, other(item))
    else:
        value[key] = other(item)
    return (field.name,)


def other(value):
    """A value that differs, of the same type."""
    return not value if type(value) is bool else value + {int: 1, float: 1.0, str: "x", bytes: b"x"}[type(value)]


@pytest.mark.slow
def test_every_change_except_of_names_and_ignored_fields_is_noticed(certified_model, tampered):
    # Names of nodes, arguments and functions stand for a position, and nothing else.
    unnoticed = re.compile(
        r".*((node|node_def|signature|input_arg|output_arg) name|arg_attr attr s|tensorflow_(git_)?version)"
    )
    original = graph_identity.graph_sha256(certified_model)
    draw = random.Random(4)
    for _ in range(20):
        paths = []
        folder = tampered(lambda model, paths=paths: paths.append(" ".join(change_somewhere(model, draw))))
        try:
            noticed = graph_identity.graph_sha256(folder) != original
        except BitsumError:
            noticed = True
        assert noticed or unnoticed.fullmatch(paths[0]), paths


def test_ignored_fields_are_ignored(tampered, certified_model, cell):
    def ignored(model):
        model.meta_info_def.tensorflow_version = "2.16.3"
        model.meta_info_def.tensorflow_git_version = "unknown"
        node(model, "step:Greater").experimental_debug_info.original_node_names.append("x")
        function(model, "step").arg_attr[0].attr["_user_specified_name"].s = b"x"

    folder = tampered(ignored)
    assert graph_identity.differences(folder, cell) == []
    assert graph_identity.graph_sha256(folder) == graph_identity.graph_sha256(certified_model)


@pytest.mark.slow
def test_another_number_of_units_is_named(certified_model):
    found = graph_identity.differences(
        certified_model, graph_identity.fresh(lambda folder: export.save(GRU(3), folder))
    )
    assert any(line.startswith('main graph: node { name: "U_h" op: "VarHandleOp"') for line in found), found


class _Reversed(GRU):
    """The same variables, the same names: Keras's z, not the paper's."""

    def advance(self, x_z, x_r, x_h, h):
        z, r = 1 - tf.sigmoid(x_z + h @ self.U_z), tf.sigmoid(x_r + h @ self.U_r)
        return (1 - z) * h + z * tf.tanh(x_h + (r * h) @ self.U_h)


@pytest.mark.slow
def test_an_export_of_other_code_is_another_graph(certified_model):
    found = graph_identity.differences(
        certified_model, graph_identity.fresh(lambda folder: export.save(_Reversed(8), folder))
    )
    assert any("only in the cell" in line for line in found), found


def test_every_variable_is_restored_from_its_own_tensor(certified_model):
    keys = graph_identity.restored_keys(canonical_graph.Graph(certified_model))
    reader = tf.train.load_checkpoint(str(certified_model / "variables" / "variables"))
    for name, value in certified.arrays(certified.weights()).items():
        np.testing.assert_array_equal(reader.get_tensor(keys[name]), value)
    assert len(keys) == 11


@pytest.mark.parametrize("content", [None, b"", b"\x0a\xff garbage", b"\x08\x01"])
def test_files_other_than_a_model_are_refused_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(BitsumError) as refusal:
        graph_identity.graph_sha256(tmp_path)
    assert "\n" not in str(refusal.value) and str(tmp_path) in str(refusal.value)
