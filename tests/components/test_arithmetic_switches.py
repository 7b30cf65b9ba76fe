"""Every command that computes, or starts a program that does, clears the variables that enable unproven arithmetic."""

import os

import pytest

from components import arithmetic_switches
from pipeline import cli

pytestmark = pytest.mark.fast

SWITCHES = [
    "DNNL_DEFAULT_FPMATH_MODE",
    "ITEX_AUTO_MIXED_PRECISION",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_LEVEL",
    "TF_ENABLE_AUTO_MIXED_PRECISION",
    "TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32",
    "TF_FUNCTION_JIT_COMPILE_DEFAULT",
    "TF_JIT_COMPILE_REWRITE",
    "TF_SET_ONEDNN_FPMATH_MODE",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
]
HARMLESS = {
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_VERBOSE": "0",
    "TF_NUM_INTRAOP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "MY_XLA_FLAGS": "x",
    "XLA_FLAGS_NOTE": "x",
}


@pytest.fixture
def environment(monkeypatch):
    for name in arithmetic_switches.among(os.environ):
        monkeypatch.delenv(name)
    for name, value in {**dict.fromkeys(SWITCHES, "--x"), **HARMLESS}.items():
        monkeypatch.setenv(name, value)


def test_switches_are_cleared_and_the_rest_stays(environment):
    before = dict(os.environ)
    note = arithmetic_switches.clear()
    assert note.endswith(f": {', '.join(SWITCHES)}") and "\n" not in note
    assert {**dict(os.environ), **dict.fromkeys(SWITCHES, "--x")} == before and not set(SWITCHES) & set(os.environ)
    assert arithmetic_switches.clear() is None


@pytest.mark.parametrize("command", ["run", "node", "verify", "demo", "serve", "qualify"])
def test_the_command_says_so_in_one_line_before_anything_else(environment, monkeypatch, capsys, command):
    def run(args):
        assert not set(SWITCHES) & set(os.environ)
        return 7

    monkeypatch.setattr(f"{cli.COMMANDS[command][0]}.run", run)
    needed = {"demo": ["bomb"], "verify": ["model"]}.get(command, [])
    assert cli.main([command, *needed]) == 7
    assert (
        capsys.readouterr().err
        == f"note: cleared from the environment, as the proof excludes the arithmetic that they enable: "
        f"{', '.join(SWITCHES)}\n"
    )
    assert cli.main([command, *needed]) == 7
    assert capsys.readouterr().err == ""
