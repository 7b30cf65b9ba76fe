"""Rules that import-linter cannot check: no packages in the trusted base, no side effects at import, lazy imports."""

import ast
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator

import pytest

from components.compat import tomllib
from tests.support.source_tree import LAYERS, Module, SourceTree, at_import, dotted

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[1]

# The tasks, the trusted base, and the modules that it and the command line import.
STANDARD_LIBRARY_ONLY = re.compile(
    r"components\.(task\.\w+|proof\.(certificate|checker|interval|weights)|steps\.model_server|"
    r"savedmodel\.(model_files|push_order|version_folder)|\w+)"
)
# tomli is tomllib for Python 3.10.
STANDARD_LIBRARY = sys.stdlib_module_names | {"tomllib", "tomli"}

# Calls that read or change the world around a module while it is imported.
FORBIDDEN_CALLS = re.compile(
    r"open|print|input|os\..*|random\.(?!Random$).*|(np|numpy)\.random\..*|tf\.(random|config|io)\..*|tf\.(Variable|constant)|"
    r"(subprocess|socket|shutil|tempfile|urllib|signal)\..*|threading\.Thread|logging\.basicConfig|sys\.path\..*|"
    r".*\.(mkdir|makedirs|touch|unlink|exists|cwd|home|read_text|read_bytes|write_text|write_bytes|setLevel|addHandler)"
)
# Exempt: they only compute.
HARMLESS_CALLS = re.compile(r"os\.path\.(join|dirname|basename|abspath|splitext)|os\.fspath")
FORBIDDEN_NAMES = {"os.environ", "os.environb"}

# Modules that may write lines: printable escapes them, log_lines passes them to it, progress redraws one in place.
WRITERS = {"components.printable", "components.log_lines", "components.progress", "components.outputs"}
WRITING = re.compile(
    r"print|(sys\.)?(stdout|stderr)\.(buffer\..*|write|writelines)|os\.write|traceback\.print_.*|"
    r"logging\.(StreamHandler|Formatter)|warnings\.warn"
)

RENAMING = re.compile(r"os\.(replace|renames?)|shutil\.move|(?!tf\.io\.gfile\.).*\brename")

SILENT = re.compile(r"(?!tf\.io\.gfile\.)(.*\.)?r?glob|os\.walk")
# The holders of a lock are only named in messages; the server compares a version's files before and after.
SKIPPING = {"pipeline.root_lock", "serving.versions.version_directory"}

# The modules that may parse messages themselves; checkpoint compares the result with the bytes.
STRICT_PARSERS = {"components.formats.strict_protos", "components.savedmodel.checkpoint"}

# (name, ending) of the hosts of package registries, split so that this file names none.
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
TOOL_CACHES = {".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".import_linter_cache"}
SKIPPED_FOLDERS = {".git", ".venv", ".uv", ".lanes", "var", "build", "__pycache__"} | TOOL_CACHES


@pytest.fixture(scope="module")
def source() -> SourceTree:
    tree = SourceTree(ROOT)
    assert {module.layer for module in tree.modules.values()} >= {"components", "serving", "pipeline", "tests"}
    return tree


def more_than_python(source: SourceTree) -> list[str]:
    """Imports of installed packages, direct or indirect, by modules that may use the standard library only."""
    return [
        f"{imported.where}: {chain} imports {imported.name}; {module.name} may use the standard library only"
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
    """Imports of installed packages by the command line or a command module, which slow down `bitsum --help`."""
    return [
        f"{imported.where}: {chain} imports {imported.name}: import it in the function that needs it"
        for module in source.modules.values()
        if module.name in ("pipeline.cli", "pipeline.__main__") or _is_command(module)
        for imported, chain in source.reached(module)
        if imported.name.partition(".")[0] not in STANDARD_LIBRARY
    ]


def _is_command(module: Module) -> bool:
    defined = {node.name for node in module.tree.body if isinstance(node, ast.FunctionDef)}
    return module.layer in ("serving", "pipeline") and {"add_arguments", "run"} <= defined


def prints(source: SourceTree) -> list[str]:
    """Output that does not go through components.printable, which escapes names."""
    return [
        f"{module.where(node)}: {module.name} uses {used}: use say or LineHandler; components report progress"
        for module in source.modules.values()
        if module.layer in ("components", "serving", "pipeline") and module.name not in WRITERS
        for node in ast.walk(module.tree)
        if (used := dotted(node)) and WRITING.fullmatch(used)
    ]


def lenient_parsers(source: SourceTree) -> list[str]:
    """Calls of protobuf parsers, which may ignore the end of a message's bytes."""
    return [
        f"{module.where(node)}: {module.name} uses {node.attr}: use components.formats.strict_protos"
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


def silent_walks(source: SourceTree) -> list[str]:
    """Code that takes a folder that cannot be read for an empty one, as pathlib's glob and os.walk do."""
    return [
        f"{module.where(node)}: {module.name} skips unreadable folders: use matching or tree of components.atomic"
        for module in source.modules.values()
        if module.layer in ("components", "serving", "pipeline") and module.name not in SKIPPING
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _skips(node)
    ]


def _skips(call: ast.Call) -> bool:
    name = dotted(call.func) or (call.func.attr if isinstance(call.func, ast.Attribute) else "")
    return bool(SILENT.fullmatch(name)) and not any(keyword.arg == "onerror" for keyword in call.keywords)


def registry_hosts(root: pathlib.Path) -> list[str]:
    host = re.compile("|".join(rf"\b{re.escape(name)}\.{ending}\b" for name, ending in REGISTRIES))
    findings = []
    for path in files_of(root):
        relative = path.relative_to(root)
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), start=1):
            if match := host.search(line):
                findings.append(f"{relative}:{number}: names the package registry {match[0]}")
    return findings


def files_of(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files of the checkout, without those of tools and runs."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and not name.endswith(".egg-info"))
        yield from (pathlib.Path(folder, name) for name in sorted(files))


def package_diagram(root: pathlib.Path) -> str:
    """The layers of the import contracts, highest first, with the docstrings of the packages."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {
        container: contract["layers"]
        for contract in contracts
        if contract["type"] == "layers"
        for container in contract.get("containers", [""])
    }
    lines = []
    for top in layers[""]:
        lines += ["", f"{top:15} {_summary(root, top)}"]
        for level, layer in zip(range(len(layers.get(top, [])), 0, -1), layers.get(top, []), strict=True):
            names = re.split(r" [|:] ", layer)
            packages = [name for name in names if (root / top / name).is_dir()]
            modules = (" | " if " | " in layer else ", ").join(name for name in names if name not in packages)
            lines += [f"{level:3} {name:11} {_summary(root, f'{top}.{name}')}" for name in packages]
            lines += [f"{level:3} {line}" for line in textwrap.wrap(modules, 110)]
    return "\n".join(line.rstrip() for line in lines[1:]) + "\n"


def _summary(root: pathlib.Path, package: str) -> str:
    """The first paragraph of a package's docstring."""
    source = (root / package.replace(".", "/") / "__init__.py").read_text()
    text = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
    return " ".join(text.split()).removesuffix(".")


def listed(findings: list[str]) -> str:
    return "\n" + "\n".join(findings)


@pytest.mark.parametrize(
    "check", [more_than_python, side_effects, heavy_commands, prints, lenient_parsers, renames, silent_walks]
)
def test_modules(check, source):
    assert not (findings := check(source)), listed(findings)


def test_airflow_imports_nothing_of_ours():
    imported = re.compile(rf"^\s*(from|import) ({'|'.join(LAYERS)})\b", re.MULTILINE)
    files = sorted((ROOT / "airflow").rglob("*.py"))
    assert files and not [str(file) for file in files if imported.search(file.read_text())]


def test_the_documented_diagram_shows_the_contracts():
    documented = re.search(r"```text\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL)[1]
    assert documented == package_diagram(ROOT), f"docs/architecture.md needs this block:\n{package_diagram(ROOT)}"


def test_no_file_names_a_registry():
    assert not (findings := registry_hosts(ROOT)), listed(findings)


# A tree with one defect of each kind.
DEFECTIVE = {
    "components/proof/checker.py": '"""."""\nimport json\nimport numpy as np\n',
    "components/environment.py": '"""."""\nimport os\n\nHOME = os.environ\n\n\ndef late():\n    return os.environ\n',
    "components/default.py": '"""."""\nimport os\n\n\ndef late(home=os.getenv("HOME")):\n    return open(home)\n',
    "components/folder.py": '"""."""\nimport pathlib\n\nclass A:\n    pathlib.Path("x").mkdir()\n',
    "components/loud.py": '"""."""\n\n\ndef late():\n    print("x")\n',
    "serving/louder.py": '"""."""\nimport sys\n\n\ndef late(text):\n    sys.stdout.write(text)\n',
    "serving/lenient.py": '"""."""\n\n\ndef parsed(kind, data):\n    return kind.FromString(data)\n',
    "serving/renaming.py": (
        '"""."""\nimport os\n\n\ndef late(path, text):\n    os.replace(path, path)\n    (path / "x").replace(path)\n'
        '    return text.replace("a", "b")\n'
    ),
    "serving/walking.py": (
        '"""."""\nimport os\n\n\ndef late(path, fail):\n    list(os.walk(path))\n    list((path / "x").glob("*"))\n'
        "    return os.walk(path, onerror=fail)\n"
    ),
    "serving/client.py": '"""."""\nimport grpc\n',
    "serving/add.py": '"""."""\nfrom . import client\n\n\ndef add_arguments(parser): ...\ndef run(args): client\n',
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
        (silent_walks, ["serving/walking.py:6", "serving/walking.py:7"]),
    ],
)
def test_each_defect_is_reported_with_its_line(check, places, tmp_path):
    for path, text in DEFECTIVE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert sorted({": ".join(finding.split(": ")[:1]) for finding in check(SourceTree(tmp_path))}) == places


def test_a_registry_is_reported_with_its_line(tmp_path):
    (tmp_path / "setup.cfg").write_text("a\nindex = " + "files." + ".".join(REGISTRIES[1]) + "\n")
    assert [finding.split(": ")[0] for finding in registry_hosts(tmp_path)] == ["setup.cfg:2"]
