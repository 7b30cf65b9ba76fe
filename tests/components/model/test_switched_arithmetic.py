"""The switches change TensorFlow's arithmetic as documented, until they are cleared."""

import mmap
import os
import pathlib
import re
import subprocess
import sys
from importlib import util

import pytest

from components import arithmetic_switches

COMPUTE = """
import hashlib, sys
import numpy as np
from components import arithmetic_switches
if "clear" in sys.argv:
    arithmetic_switches.clear()
import tensorflow as tf

@tf.function(autograph=False)
def activations(x, w):
    return tf.sigmoid(tf.matmul(x, w)), tf.tanh(tf.matmul(x, w))

draw = np.random.default_rng(1)
x, w = (tf.constant(draw.standard_normal((64, 64), np.float32)) for _ in range(2))
print(hashlib.sha256(b"".join(out.numpy().tobytes() for out in activations(x, w))).hexdigest())
"""
# In TensorFlow's libraries, by words that such a name is made of. The rest is about logs, tests of XLA, other
# operations or tuning.
WORDS = re.compile(
    rb"\0((?:TF|XLA|ITEX|ONEDNN|DNNL)_[A-Z0-9_]*(?:FLAGS|PRECISION|FP16|BF16|TF32|FPMATH|TENSOR_OP|JIT)[A-Z0-9_]*)(?=\0)"
)
HARMLESS = {"TF_DISABLE_JIT_KERNELS", "TF_DEBUG_CUDNN_RNN_USE_TENSOR_OPS", "XLA_CPU_JIT", "XLA_GPU_JIT", "XLA_TPU_JIT"}


def computed(*arguments: str, **variables: str) -> str:
    """The digest of what a fresh process computes."""
    environment = {
        name: value for name, value in os.environ.items() if name not in arithmetic_switches.among(os.environ)
    }
    done = subprocess.run(
        [sys.executable, "-c", COMPUTE, *arguments],
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3", **variables},
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[3],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def plain():
    return computed()


@pytest.mark.parametrize(
    "variables",
    [
        {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit --tf_xla_min_cluster_size=1"},
        {"TF_FUNCTION_JIT_COMPILE_DEFAULT": "true"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_a_switch_changes_what_is_computed_until_it_is_cleared(plain, variables):
    assert computed(**variables) != plain
    assert computed("clear", **variables) == plain


def test_every_switch_in_tensorflow_s_libraries_is_known():
    folder = pathlib.Path(util.find_spec("tensorflow").submodule_search_locations[0])
    names = set()
    for library in ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2"):
        with open(folder / library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            names |= {name.decode() for name in WORDS.findall(content)}
    assert {"TF_XLA_FLAGS", "XLA_FLAGS", "TF_SET_ONEDNN_FPMATH_MODE"} <= names
    assert names - set(arithmetic_switches.among(names)) <= HARMLESS
