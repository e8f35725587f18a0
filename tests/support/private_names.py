"""Which private names of libraries some packages use or override, found in their syntax trees.

python tests/support/private_names.py switch_model train ui
"""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PRIVATE = re.compile(r"_[a-z]")


@dataclass
class Source:
    """One file: its nodes, and what it imports by name."""

    path: Path
    nodes: list[ast.AST]
    imported: dict[str, str] = field(default_factory=dict)


def private_names(packages: list[str]) -> dict[str, set[str]]:
    """Name -> the files that use it. A name that a package defines somewhere itself counts as its own, unless a class
    overrides a library's with it."""
    sources = [
        Source(path, list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
        for package in packages
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    own, classes = set(), {}
    for source in sources:
        for node in source.nodes:
            own |= _defined(node)
            if isinstance(node, ast.ClassDef):
                classes[node.name] = source, node
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                source.imported |= names
    found: dict[str, set[str]] = {}
    for source in sources:
        for node in source.nodes:
            names = {name for name in _used(node, packages) if name not in own}
            if isinstance(node, ast.ClassDef):
                bases = list(_library_bases(source, node, classes, packages))
                names |= {name for name in _members(node) if any(hasattr(base, name) for base in bases)}
            for name in filter(PRIVATE.match, names):
                found.setdefault(name, set()).add(source.path.relative_to(ROOT).as_posix())
    return found


def _defined(node: ast.AST) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
            return {name}
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return {name}
    return set()


def _used(node: ast.AST, packages: list[str]) -> set[str]:
    match node:
        case ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
            return {name}
        case ast.ImportFrom(module=str(module), names=aliases) if module.split(".")[0] not in packages:
            return {*module.split("."), *(alias.name for alias in aliases)}
    return set()


def _members(node: ast.ClassDef) -> set[str]:
    """What a class defines in its body."""
    targets = [target for part in node.body if isinstance(part, ast.Assign) for target in part.targets]
    functions = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    return functions | {target.id for target in targets if isinstance(target, ast.Name)}


def _library_bases(
    source: Source, node: ast.ClassDef, classes: dict[str, tuple[Source, ast.ClassDef]], packages: list[str]
) -> Iterator[type]:
    for base in node.bases:
        name = ast.unparse(base)
        module, _, attribute = source.imported.get(name, "").rpartition(".")
        if module and module.split(".")[0] not in packages:
            yield getattr(importlib.import_module(module), attribute)
        elif name in classes:
            yield from _library_bases(*classes[name], classes, packages)


if __name__ == "__main__":
    for name, files in sorted(private_names(sys.argv[1:]).items()):
        print(name, *sorted(files))
