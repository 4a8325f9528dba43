"""The rules of the house that a program can check: sizes, docstrings, and helpers that are defined once."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, BESIDE = ("src",), ("tests", "benchmarks", "scripts")
LINES_A_FILE, LINES_A_FUNCTION = 300, 40
FLOORS, LARGEST_ROOM = 6, 0.15
"""The longest chain of imports within a folder, and the largest share of the lines that a room has."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def sources(folders: tuple[str, ...]) -> dict[str, str]:
    """Python files by their path from the root; there are some."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 10
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def definitions(text: str) -> list[Definition]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, Definition)]


def public(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Classes, functions and methods without an underscore, by their dotted names."""
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")


def body(node: Definition) -> str:
    """Its statements without its docstring."""
    documented = ast.get_docstring(node) is not None
    return "\n".join(map(ast.unparse, node.body[documented:]))


@pytest.mark.parametrize("folders", [PACKAGE, BESIDE], ids=" ".join)
def test_no_file_is_long(folders):
    lines = {path: len(text.splitlines()) for path, text in sources(folders).items()}
    assert {path: count for path, count in lines.items() if count > LINES_A_FILE} == {}


def test_no_function_is_long():
    lines = {
        f"{path}: {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path, text in sources(PACKAGE).items()
        for function in definitions(text)
        if isinstance(function, Function)
    }
    assert {name: count for name, count in lines.items() if count > LINES_A_FUNCTION} == {}


def test_everything_public_has_a_docstring():
    modules = {path: ast.parse(text) for path, text in sources(PACKAGE).items()}
    bare = [path for path, module in modules.items() if ast.get_docstring(module) is None]
    bare += [
        f"{path}: {name}" for path, module in modules.items() for name, node in public(module)
        if ast.get_docstring(node) is None
    ]  # fmt: skip
    assert bare == []


def test_no_helper_is_defined_twice():
    """No function or class of the same name and body is in two files of tests, benchmarks and scripts."""
    files = defaultdict[tuple[str, str], set[str]](set)
    for path, text in sources(BESIDE).items():
        for node in definitions(text):
            files[node.name, body(node)].add(path)
    assert {name: paths for (name, _), paths in files.items() if len(paths) > 1} == {}


def imported(text: str, modules: set[str]) -> set[str]:
    """The package's modules that a file imports, but for its types alone."""
    found = set[str]()
    nodes = list(ast.walk(ast.parse(text)))
    for_types = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    left_out = {ast.unparse(inner) for node in for_types for inner in node.body}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and ast.unparse(node) not in left_out:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules else node.module for name in names}
    return found & modules


def depth(module: str, imports: dict[str, set[str]], above: tuple[str, ...] = ()) -> int:
    """Modules of a folder in the longest chain of imports from one of them on."""
    assert module not in above, f"imports go in a circle: {' -> '.join([*above, module])}"
    inner = [depth(other, imports, (*above, module)) for other in imports[module] if other != module]
    return 1 + max(inner, default=0)


def test_folders_are_shallow_and_rooms_are_small():
    texts = sources(PACKAGE)
    names = {path: ".".join(Path(path).with_suffix("").parts[1:]).removesuffix(".__init__") for path in texts}
    imports = {names[path]: imported(text, set(names.values())) for path, text in texts.items()}
    folders, lines = defaultdict[str, set[str]](set), defaultdict[str, int](int)
    for path, text in texts.items():
        folders[str(Path(path).parent)].add(names[path])
        lines[Path(path).parts[2]] += len(text.splitlines())
    depths = {
        folder: max(depth(module, {one: imports[one] & inside for one in inside}) for module in inside)
        for folder, inside in folders.items()
    }
    assert len(depths) > 15 and {folder: count for folder, count in depths.items() if count > FLOORS} == {}
    assert {room: count for room, count in lines.items() if count > LARGEST_ROOM * sum(lines.values())} == {}
