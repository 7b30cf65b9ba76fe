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

# The only modules of components/ that may import TFX or Beam, themselves or through others.
STEPS = {
    "arithmetic_validator",
    "artifacts",
    "data_gate",
    "drift_validator",
    "evaluator",
    "examples",
    "infra_validator",
    "last_blessed",
    "metrics",
    "prover",
    "pusher",
    "request_statistics",
    "span_importer",
    "span_resolvers",
    "window",
}
TFX_AND_BEAM = {
    "apache_beam",
    "ml_metadata",
    "tensorflow_data_validation",
    "tensorflow_model_analysis",
    "tensorflow_transform",
    "tfx",
    "tfx_bsl",
}

# The checker of proofs and the facts that it and the command line start from need nothing but Python.
STANDARD_LIBRARY_ONLY = {
    "addition",
    "arithmetic",
    "arithmetic_switches",
    "certificate",
    "checker",
    "errors",
    "interval",
    "log_lines",
    "model_files",
    "model_server",
    "patterns",
    "printable",
    "progress",
    "push_order",
    "regular_files",
    "settings",
    "signatures",
    "transducer",
    "transduction",
    "version_folder",
    "weights",
}
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

# They may parse messages themselves; the second compares what it has parsed with the bytes.
STRICT_PARSERS = {"components.strict_protos", "components.saved_weights"}

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


def imports_against_the_flow(source: SourceTree) -> list[str]:
    return [
        f"{found.where}: {module.name} imports {found.name}; imports go {' -> '.join(reversed(LAYERS))}"
        for module in source.modules.values()
        for found in source.imports(module)
        if found.name.partition(".")[0] in LAYERS[LAYERS.index(module.layer) + 1 :]
    ]


def cycles(source: SourceTree) -> list[str]:
    """One line for each import that closes a cycle."""
    found, done = [], set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in done:
            return
        for imported in source.imports(source.modules[name]):
            if imported.name in (*path, name):
                circle = (*path, name)[(*path, name).index(imported.name) :]
                found.append(f"{imported.where}: {' -> '.join((*circle, imported.name))} is a cycle")
            elif imported.name in source.modules:
                visit(imported.name, (*path, name))
        done.add(name)

    for name in source.modules:
        visit(name, ())
    return found


def impure(source: SourceTree, steps: set[str], standard_library_only: set[str]) -> list[str]:
    """Imports of TFX or Beam outside of `steps`, and of anything installed in `standard_library_only`."""
    found = []
    for module in source.modules.values():
        name = module.name.removeprefix("components.")
        if module.layer != "components":
            continue
        for imported, chain in source.reached(module):
            package = imported.name.partition(".")[0]
            if (package in TFX_AND_BEAM and name not in steps) or (
                package not in STANDARD_LIBRARY and name in standard_library_only
            ):
                found.append(
                    f"{imported.where}: {chain} imports {imported.name}, and components.{name} has to do without"
                )
    return found


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
        f"{module.where(node)}: {module.name} uses {node.attr}, which may drop bytes (components.strict_protos says why)"
        for module in source.modules.values()
        if module.layer in ("components", "serving", "pipeline") and module.name not in STRICT_PARSERS
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in ("FromString", "ParseFromString", "MergeFromString")
    ]


def without_docstring(source: SourceTree) -> list[str]:
    return [
        f"{module.path}:1: says nowhere what lives in it"
        for module in source.modules.values()
        if not _documented(module)
    ]


def _documented(module: Module) -> bool:
    empty = not module.tree.body and module.path.endswith("__init__.py")
    return bool(ast.get_docstring(module.tree)) or (empty and module.layer == "tests")


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


@pytest.mark.parametrize(
    "check",
    [imports_against_the_flow, cycles, side_effects, heavy_commands, prints, lenient_parsers, without_docstring],
)
def test_modules(check, source):
    assert not (findings := check(source)), listed(findings)


def test_pure_components(source):
    stale = [name for name in sorted(STEPS | STANDARD_LIBRARY_ONLY) if f"components.{name}" not in source.modules]
    assert not stale, f"components/ has no {stale}: take them out of this file's lists"
    assert not (findings := impure(source, STEPS, STANDARD_LIBRARY_ONLY)), listed(findings)


def test_no_file_names_a_registry():
    assert not (findings := registry_hosts(ROOT)), listed(findings)


# A tree with one defect of each kind, and the line where it has to be found.
DEFECTIVE = {
    "components/upward.py": '"""."""\n\n\ndef later():\n    from serving import client\n    return client\n',
    "components/one.py": '"""."""\nimport components.two\n',
    "components/two.py": '"""."""\nfrom components import one\n',
    "components/pure.py": '"""."""\nfrom components.step import run\n',
    "components/step.py": '"""."""\nimport apache_beam.io\n\n\ndef run(): ...\n',
    "components/kernel.py": '"""."""\nimport json\nimport numpy as np\n',
    "components/environment.py": '"""."""\nimport os\n\nHOME = os.environ["HOME"]\n\n\ndef late():\n    return os.environ\n',
    "components/default.py": '"""."""\nimport os\n\n\ndef late(home=os.getenv("HOME")):\n    return open(home)\n',
    "components/folder.py": '"""."""\nimport pathlib\n\nclass A:\n    pathlib.Path("x").mkdir()\n',
    "components/loud.py": '"""."""\n\n\ndef late():\n    print("x")\n',
    "components/silent.py": "import json\n",
    "serving/louder.py": '"""."""\nimport sys\n\n\ndef late(text):\n    sys.stdout.write(text)\n',
    "serving/lenient.py": '"""."""\n\n\ndef parsed(kind, data):\n    return kind.FromString(data)\n',
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
        (imports_against_the_flow, ["components/upward.py:5"]),
        (cycles, ["components/two.py:2"]),
        (lambda source: impure(source, {"step"}, {"kernel"}), ["components/kernel.py:3", "components/step.py:2"]),
        (side_effects, ["components/default.py:5", "components/environment.py:4", "components/folder.py:5"]),
        (heavy_commands, ["serving/client.py:2"]),
        (prints, ["components/loud.py:5", "serving/louder.py:6"]),
        (lenient_parsers, ["serving/lenient.py:5"]),
        (without_docstring, ["components/silent.py:1"]),
    ],
)
def test_defects_are_found_where_they_are(check, places, tmp_path):
    for path, text in DEFECTIVE.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    assert sorted({": ".join(finding.split(": ")[:1]) for finding in check(SourceTree(tmp_path))}) == places


def test_a_registry_is_found_where_it_is(tmp_path):
    (tmp_path / "setup.cfg").write_text("a\nindex = " + "files." + ".".join(REGISTRIES[1]) + "\n")
    assert [finding.split(": ")[0] for finding in registry_hosts(tmp_path)] == ["setup.cfg:2"]
