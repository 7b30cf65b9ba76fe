"""Imports go one way, pure modules stay pure, and importing a module does nothing but define things."""

import ast
import os
import pathlib
import re
import sys
from collections.abc import Iterator

import pytest

from tests.support.source_tree import LAYERS, Module, SourceTree, at_import, dotted

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[1]

# The tasks, the trusted base, and the facts that it and the command line start from need nothing but Python.
STANDARD_LIBRARY_ONLY = re.compile(
    r"components\.(task\.\w+|proof\.(certificate|checker|interval|weights)|steps\.model_server|"
    r"savedmodel\.(model_files|push_order|version_folder)|\w+)"
)
# tomllib came into the standard library with Python 3.11; tomli is the same for 3.10.
STANDARD_LIBRARY = sys.stdlib_module_names | {"tomllib", "tomli"}

# Calls that read or change the world around a module while it is imported.
FORBIDDEN_CALLS = re.compile(
    r"open|print|input|os\..*|random\.(?!Random$).*|(np|numpy)\.random\..*|tf\.(random|config|io)\..*|tf\.(Variable|constant)|"
    r"(subprocess|socket|shutil|tempfile|urllib|signal)\..*|threading\.Thread|logging\.basicConfig|sys\.path\..*|"
    r".*\.(mkdir|makedirs|touch|unlink|exists|cwd|home|read_text|read_bytes|write_text|write_bytes|setLevel|addHandler)"
)
# They only compute.
HARMLESS_CALLS = re.compile(r"os\.path\.(join|dirname|basename|abspath|splitext)|os\.fspath")
FORBIDDEN_NAMES = {"os.environ", "os.environb"}

# They write lines: the first escapes them, the second hands them to it, and the third redraws one in place.
WRITERS = {"components.printable", "components.log_lines", "components.progress"}
WRITING = re.compile(
    r"print|(sys\.)?(stdout|stderr)\.(buffer\..*|write|writelines)|os\.write|traceback\.print_.*|"
    r"logging\.(StreamHandler|Formatter)|warnings\.warn"
)

RENAMING = re.compile(r"os\.(replace|renames?)|shutil\.move|(?!tf\.io\.gfile\.).*\brename")

# They may parse messages themselves; the second compares what it has parsed with the bytes.
STRICT_PARSERS = {"components.formats.strict_protos", "components.savedmodel.checkpoint"}

# (name, ending) of the hosts that package registries answer on, kept apart so that this file names none.
REGISTRIES = (
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "org"),
    ("crates", "io"),
    ("proxy.golang", "org"),
    ("repo.maven.apache", "org"),
    ("repo1.maven", "org"),
    ("deb.debian", "org"),
    ("archive.ubuntu", "com"),
)
NOT_OURS = {".git", ".venv", ".uv", "var", "build", "__pycache__", ".pytest_cache", ".hypothesis"}


@pytest.fixture(scope="module")
def source() -> SourceTree:
    tree = SourceTree(ROOT)
    assert {module.layer for module in tree.modules.values()} >= {"components", "serving", "pipeline", "tests"}
    return tree


def more_than_python(source: SourceTree) -> list[str]:
    """Imports of anything installed, at once or through others, by what has to do with the standard library."""
    return [
        f"{imported.where}: {chain} imports {imported.name}, and {module.name} has to do with the standard library"
        for module in source.modules.values()
        if STANDARD_LIBRARY_ONLY.fullmatch(module.name)
        for imported, chain in source.reached(module)
        if imported.name.partition(".")[0] not in STANDARD_LIBRARY
    ]


def side_effects(source: SourceTree) -> list[str]:
    return [
        f"{module.where(node)}: importing {module.name} uses {name}"
        for module in source.modules.values()
        if module.layer in ("components", "serving", "pipeline")
        for node in at_import(module)
        if (name := _side_effect(node))
    ]


def _side_effect(node: ast.AST) -> str:
    name = dotted(node.func if isinstance(node, ast.Call) else node)
    called = isinstance(node, ast.Call) and FORBIDDEN_CALLS.fullmatch(name) and not HARMLESS_CALLS.fullmatch(name)
    return name if called or name in FORBIDDEN_NAMES else ""


def heavy_commands(source: SourceTree) -> list[str]:
    """What keeps `bitsum --help` waiting: the command line and its commands import more than the standard library at
    once."""
    return [
        f"{imported.where}: {chain} imports {imported.name}; a command imports it in the function that needs it"
        for module in source.modules.values()
        if module.name in ("pipeline.cli", "pipeline.__main__") or _is_command(module)
        for imported, chain in source.reached(module)
        if imported.name.partition(".")[0] not in STANDARD_LIBRARY
    ]


def _is_command(module: Module) -> bool:
    defined = {node.name for node in module.tree.body if isinstance(node, ast.FunctionDef)}
    return module.layer in ("serving", "pipeline") and {"add_arguments", "run"} <= defined


def prints(source: SourceTree) -> list[str]:
    """What writes lines past components.printable, which escapes the names in them; steps of the pipeline write none at
    all."""
    return [
        f"{module.where(node)}: {module.name} uses {used}: lines go through say or LineHandler, and components report their progress"
        for module in source.modules.values()
        if module.layer in ("components", "serving", "pipeline") and module.name not in WRITERS
        for node in ast.walk(module.tree)
        if (used := dotted(node)) and WRITING.fullmatch(used)
    ]


def lenient_parsers(source: SourceTree) -> list[str]:
    """What parses messages without noticing that one ends before its bytes do."""
    return [
        f"{module.where(node)}: {module.name} uses {node.attr}, which may drop bytes (components.formats.strict_protos says why)"
        for module in source.modules.values()
        if module.layer in ("components", "serving", "pipeline") and module.name not in STRICT_PARSERS
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in ("FromString", "ParseFromString", "MergeFromString")
    ]


def renames(source: SourceTree) -> list[str]:
    """Code outside of components.atomic that renames files, by which one could appear before it is on the disk."""
    return [
        f"{module.where(node)}: {module.name} uses {name}; components.atomic writes and removes files and folders"
        for module in source.modules.values()
        if module.layer in ("components", "serving", "pipeline") and module.name != "components.atomic"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and (name := _renaming(node))
    ]


def _renaming(call: ast.Call) -> str:
    name = dotted(call.func) or (call.func.attr if isinstance(call.func, ast.Attribute) else "")
    # str.replace takes two arguments, datetime's and dataclasses' keywords; tf.io.gfile serves remote disks, too.
    is_path = name.endswith("replace") and len(call.args) == 1 and not call.keywords
    return name if RENAMING.fullmatch(name) or is_path else ""


def registry_hosts(root: pathlib.Path) -> list[str]:
    host = re.compile("|".join(rf"\b{re.escape(name)}\.{ending}\b" for name, ending in REGISTRIES))
    found = []
    for path in files_of(root):
        relative = path.relative_to(root)
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), start=1):
            if match := host.search(line):
                found.append(f"{relative}:{number}: names the package registry {match[0]}")
    return found


def files_of(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files of the checkout, without what tools and runs leave in it."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in NOT_OURS and not name.endswith(".egg-info"))
        yield from (pathlib.Path(folder, name) for name in sorted(files))


def listed(findings: list[str]) -> str:
    return "\n" + "\n".join(findings)


@pytest.mark.parametrize("check", [more_than_python, side_effects, heavy_commands, prints, lenient_parsers, renames])
def test_modules(check, source):
    assert not (findings := check(source)), listed(findings)


def test_airflow_imports_nothing_of_ours():
    imported = re.compile(rf"^\s*(from|import) ({'|'.join(LAYERS)})\b", re.MULTILINE)
    files = sorted((ROOT / "airflow").rglob("*.py"))
    assert files and not [str(file) for file in files if imported.search(file.read_text())]


def test_no_file_names_a_registry():
    assert not (findings := registry_hosts(ROOT)), listed(findings)


# A tree with one defect of each kind, and the line where it has to be found.
DEFECTIVE = {
    "components/proof/checker.py": '"""."""\nimport json\nimport numpy as np\n',
    "components/environment.py": '"""."""\nimport os\n\nHOME = os.environ["HOME"]\n\n\ndef late():\n    return os.environ\n',
    "components/default.py": '"""."""\nimport os\n\n\ndef late(home=os.getenv("HOME")):\n    return open(home)\n',
    "components/folder.py": '"""."""\nimport pathlib\n\nclass A:\n    pathlib.Path("x").mkdir()\n',
    "components/loud.py": '"""."""\n\n\ndef late():\n    print("x")\n',
    "serving/louder.py": '"""."""\nimport sys\n\n\ndef late(text):\n    sys.stdout.write(text)\n',
    "serving/lenient.py": '"""."""\n\n\ndef parsed(kind, data):\n    return kind.FromString(data)\n',
    "serving/renaming.py": (
        '"""."""\nimport os\n\n\ndef late(path, text):\n    os.replace(path, path)\n    (path / "x").replace(path)\n'
        '    return text.replace("a", "b")\n'
    ),
    "serving/client.py": '"""."""\nimport grpc\n',
    "serving/add.py": '"""."""\nfrom . import client\n\n\ndef add_arguments(parser): ...\ndef run(args): return client\n',
    "serving/fine.py": (
        '"""."""\n\n\ndef add_arguments(parser): ...\ndef run(args):\n    import grpc\n    return grpc\n\n\n'
        'if __name__ == "__main__":\n    input()\n'
    ),
}


@pytest.mark.parametrize(
    "check, places",
    [
        (more_than_python, ["components/proof/checker.py:3"]),
        (side_effects, ["components/default.py:5", "components/environment.py:4", "components/folder.py:5"]),
        (heavy_commands, ["serving/client.py:2"]),
        (prints, ["components/loud.py:5", "serving/louder.py:6"]),
        (lenient_parsers, ["serving/lenient.py:5"]),
        (renames, ["serving/renaming.py:6", "serving/renaming.py:7"]),
    ],
)
def test_defects_are_found_where_they_are(check, places, tmp_path):
    for path, text in DEFECTIVE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert sorted({": ".join(finding.split(": ")[:1]) for finding in check(SourceTree(tmp_path))}) == places


def test_a_registry_is_found_where_it_is(tmp_path):
    (tmp_path / "setup.cfg").write_text("a\nindex = " + "files." + ".".join(REGISTRIES[1]) + "\n")
    assert [finding.split(": ")[0] for finding in registry_hosts(tmp_path)] == ["setup.cfg:2"]
