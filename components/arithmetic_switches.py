"""Environment variables that switch on arithmetic which the theorem (components.proof.checker, A1 - A4) excludes.

They change what TensorFlow, oneDNN or cuBLAS compute, and nothing in a model or its graph tells: XLA's rewriting,
float16 or bfloat16 in the place of float32, TF32. TensorFlow reads them when it is imported or first computes, and a
program that is started inherits them: so they are cleared before either. Variables that only choose among kernels that
the theorem covers, such as TF_ENABLE_ONEDNN_OPTS, and those for threads and memory, stay.

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
    """Those of the variables `names` that are such switches, in order of the alphabet."""
    return sorted(filter(_SWITCH.fullmatch, names))


def clear() -> str | None:
    """Take them out of this process's environment; a line that names them, None where none was set."""
    found = among(os.environ)
    for name in found:
        del os.environ[name]
    if not found:
        return None
    return (
        f"cleared from the environment, since the proof excludes the arithmetic that they switch on: {', '.join(found)}"
    )
