"""TensorFlow is imported without its first lines, and what follows is seen."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

_PROGRAM = """
import os, sys
sys.path.insert(0, {folder!r})
from components import compat
try:
    compat.import_tensorflow()
    compat.import_tensorflow()
except ImportError as error:
    os.write(2, str(error).encode())
os.write(2, b" after")
"""


@pytest.mark.parametrize(
    ("end", "seen"), [("", " after"), ("raise ImportError('no AVX')", "no AVX after")], ids=["imported", "failed"]
)
def test_what_an_import_of_tensorflow_writes_is_not_seen(tmp_path, end, seen):
    (tmp_path / "tensorflow.py").write_text(
        f"import os, sys\nos.write(2, b'oneDNN')\nprint('x', file=sys.stderr)\n{end}"
    )
    program = _PROGRAM.format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, seen)
