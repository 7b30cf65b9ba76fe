"""The modules of a source tree and what they import, read by `ast` without importing anything."""

import ast
import dataclasses
import pathlib
from collections.abc import Iterator

# In the order in which they may be imported: each by those after it only.
LAYERS = ("components", "serving", "pipeline", "benchmarks", "tests")

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclasses.dataclass(frozen=True)
class Import:
    """`name` is imported at `where`, "path:line"; `at_once` if importing the module already does it, not only a
    call."""

    name: str
    where: str
    at_once: bool


@dataclasses.dataclass(frozen=True)
class Module:
    """A module of the tree: its dotted name, its path from the root and its syntax tree."""

    name: str
    path: str
    tree: ast.Module

    @property
    def layer(self) -> str:
        return self.name.partition(".")[0]

    def where(self, node: ast.AST) -> str:
        return f"{self.path}:{node.lineno}"


class SourceTree:
    """All modules of the layers below `root`."""

    def __init__(self, root: pathlib.Path):
        self.modules: dict[str, Module] = {}
        self._imports: dict[str, list[Import]] = {}
        for layer in LAYERS:
            for path in sorted((root / layer).rglob("*.py")):
                relative = path.relative_to(root)
                name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
                self.modules[name] = Module(name, str(relative), ast.parse(path.read_text("utf-8"), str(relative)))

    def imports(self, module: Module) -> list[Import]:
        """What `module` imports; of our own packages the very module, so `from components import errors` is
        components.errors."""
        if module.name not in self._imports:
            self._imports[module.name] = self._read_imports(module)
        return self._imports[module.name]

    def _read_imports(self, module: Module) -> list[Import]:
        found = []
        for node, at_once in _walk(module.tree, at_once=True):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = self._imported_from(module, node)
            else:
                continue
            found += [Import(name, module.where(node), at_once) for name in names]
        return found

    def reached(self, module: Module) -> Iterator[tuple[Import, str]]:
        """Each import of something that is not ours which importing `module` causes, with the chain of modules that
        leads to it."""
        chains = {module.name: module.name}
        waiting = [module]
        while waiting:
            current = waiting.pop()
            for found in self.imports(current):
                if not found.at_once:
                    continue
                if found.name in self.modules:
                    if found.name not in chains:
                        chains[found.name] = f"{chains[current.name]} -> {found.name}"
                        waiting.append(self.modules[found.name])
                elif found.name.partition(".")[0] not in LAYERS:
                    yield found, chains[current.name]

    def _imported_from(self, module: Module, node: ast.ImportFrom) -> list[str]:
        base = node.module or ""
        if node.level:
            package = module.name.split(".") if module.path.endswith("__init__.py") else module.name.split(".")[:-1]
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
        names = [f"{base}.{alias.name}" for alias in node.names]
        return [name if name in self.modules else base for name in names]


def at_import(module: Module) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported; what only runs as a program is left out."""
    return (node for node, at_once in _walk(module.tree, at_once=True) if at_once)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute; the objects that a call or a subscript returns are left out, as in `.mkdir`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def _walk(node: ast.AST, at_once: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        runs = at_once and not _only_as_program(child)
        yield child, runs
        if isinstance(child, _FUNCTIONS):
            yield from _walk_function(child, runs)
        else:
            yield from _walk(child, runs)


def _walk_function(node: ast.AST, at_once: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Decorators and defaults are evaluated with the definition, the body when it is called."""
    for child in ast.iter_child_nodes(node):
        body = child in (node.body if isinstance(node.body, list) else [node.body])
        runs = at_once and not body
        yield child, runs
        if isinstance(child, _FUNCTIONS):
            yield from _walk_function(child, runs)
        else:
            yield from _walk(child, runs)


def _only_as_program(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and (
        "__main__" in ast.unparse(node.test) or "TYPE_CHECKING" in ast.unparse(node.test)
    )
