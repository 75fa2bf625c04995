"""Prints the modules that a function's code imports anywhere, also late or in a branch, and that cannot be found.

Run by itself, with the folders in which modules are found as arguments: `python -I -S find_imports.py FOLDER...`.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

OURS = ("job", "schoolbell")


def spec_of(module: str) -> ModuleSpec | None:
    """Where a module is, without running it (packages above it are run)."""
    try:
        return importlib.util.find_spec(module)
    except ImportError:
        return None


def imports_of(source: str, package: str) -> Iterator[tuple[str, list[str]]]:
    """The modules that a source in a package imports, each with the names that it takes from it."""
    left: list[ast.AST] = [ast.parse(source)]
    while left:
        node = left.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                left.extend(node.orelse)
            case ast.Import():
                yield from ((alias.name, []) for alias in node.names)
            case ast.ImportFrom():
                module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                yield module, [alias.name for alias in node.names]
            case _:
                left.extend(ast.iter_child_nodes(node))


def missing(start: str) -> Iterator[str]:
    """The modules that are imported by this one, and by those of ours that it imports, and that are not there."""
    seen: set[str] = set()
    left = [start]
    while left:
        module = left.pop()
        if module in seen:
            continue
        seen.add(module)
        spec = spec_of(module)
        if spec is None:
            yield module
        elif module.split(".")[0] in OURS and spec.origin:
            for imported, names in imports_of(Path(spec.origin).read_text(), spec.parent or ""):
                left.append(imported)
                package = spec_of(imported)
                if package and package.submodule_search_locations and imported.split(".")[0] in OURS:
                    left.extend(name for part in names if spec_of(name := f"{imported}.{part}"))


if __name__ == "__main__":
    sys.path[:0] = sys.argv[1:]
    print("\n".join(sorted(missing("job.app"))))
