"""Generated modules are imported without the package around them."""

import sys
import threading

import pytest

from components.errors import BitsumError
from components.formats import protos

pytestmark = pytest.mark.fast


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose module keeps the stand-in for the package during the import."""
    (tmp_path / "heavy").mkdir()
    (tmp_path / "heavy" / "__init__.py").write_text("value = 42\n")
    (tmp_path / "heavy" / "light.py").write_text("import sys\nstand_in = sys.modules['heavy']\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "heavy"
    for name in ("heavy", "heavy.light"):
        sys.modules.pop(name, None)


def test_a_module_is_imported_without_its_package(package):
    light = protos.load_from(package, light="heavy.light").light
    assert package not in sys.modules and not hasattr(light.stand_in, "value")
    import heavy

    assert heavy.value == 42 and protos.load_from(package, again="heavy.light").again is light


def test_a_thread_that_catches_the_stand_in_is_served_by_the_package(package):
    stand_in = protos.load_from(package, light="heavy.light").light.stand_in
    values = []
    thread = threading.Thread(target=lambda: values.append(stand_in.value))
    thread.start()
    thread.join()
    assert values == [42]


@pytest.mark.parametrize("package, module", [("absent", "absent.module"), ("google", "google.protobuf.absent")])
def test_a_missing_package_is_named(package, module):
    with pytest.raises(BitsumError, match=r"^.*absent.* is not installed: bitsum needs tensorflow"):
        protos.load_from(package, module=module)
