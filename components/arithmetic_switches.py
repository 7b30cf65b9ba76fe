"""Environment variables that enable arithmetic which the theorem (components.proof.checker, A1 - A4) excludes.

They change the arithmetic of TensorFlow, oneDNN or cuBLAS without a trace in the model or its graph: XLA's rewriting,
float16 or bfloat16 instead of float32, TF32. TensorFlow reads them when it is imported or first computes, and child
processes inherit them, so bitsum clears them before either. Variables that only choose among kernels that the theorem
covers, such as TF_ENABLE_ONEDNN_OPTS, and those for threads and memory, stay.

Read by TensorFlow 2.16 - 2.21 in compiler/jit/flags.cc, xla/parse_flags_from_env.cc, python/eager/context.py,
python/eager/polymorphic_function/polymorphic_function.py, core/grappler/optimizers/auto_mixed_precision.cc and
core/util/onednn_env_vars.cc, by oneDNN (floating-point math mode), by cuBLAS, and by Intel's, AMD's and NVIDIA's
TensorFlow.
"""

import os
import re
from collections.abc import Iterable

_SWITCH = re.compile(
    r"(TF_)?XLA_FLAGS|TF_JITRT_FLAGS|TF_FUNCTION_JIT_COMPILE_DEFAULT|TF_JIT_COMPILE_REWRITE|NVIDIA_TF32_OVERRIDE|"
    r"(TF|ONEDNN|DNNL|ITEX|DTENSOR|ZENDNN)_\w*(MIXED_PRECISION|FPMATH|FP32_MATH|TENSOR_OP_MATH|TF32|FP16|BF16)\w*|"
    r"CUBLAS_EMULATE_SINGLE_PRECISION|ROCBLAS_INTERNAL_FP16_ALT_IMPL"
)


def among(names: Iterable[str]) -> list[str]:
    """The switches among the variables `names`, sorted."""
    return sorted(filter(_SWITCH.fullmatch, names))


def clear() -> str | None:
    """Remove them from this process's environment. Returns a line that names them, None if none was set."""
    switches = among(os.environ)
    for name in switches:
        del os.environ[name]
    if not switches:
        return None
    return f"cleared from the environment, as the proof excludes the arithmetic that they enable: {', '.join(switches)}"
