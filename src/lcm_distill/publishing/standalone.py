"""One Python file out of a module and what it uses of this package, for those who do not have the package.

The file holds the definitions themselves, not copies that are kept beside them, so the two cannot differ. Only the
kernels of a GPU are left out: `kernels.plain` stands for them.
"""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "lcm_distill"
KERNELS, PLAIN = f"{PACKAGE}.kernels.", f"{PACKAGE}.kernels.plain"


@dataclass
class _Module:
    """A module's source, by name.

    Attributes:
        definitions: functions, classes and constants, with their lines. own: names imported from the package, with the
            module that defines each. outside: other imported names, with the statement that imports each.
    """

    docstring: str
    definitions: dict[str, tuple[ast.stmt, str]] = field(default_factory=dict[str, tuple[ast.stmt, str]])
    own: dict[str, str] = field(default_factory=dict[str, str])
    outside: dict[str, str] = field(default_factory=dict[str, str])


def standalone(name: str) -> str:
    """The source of a file that works alone: all definitions of a module, and those of the package that they use.

    Args:
        name: of the module, with dots. Its imports from the package are of the form `from MODULE import NAME`.

    Raises:
        ValueError: two of the modules give one name to different things.
    """
    root = _read(name)
    modules, wanted = {name: root}, [(name, definition) for definition in root.definitions]
    found = dict[str, str]()
    imports = set[str]()
    while wanted:
        place, definition = wanted.pop()
        if found.setdefault(definition, place) != place:
            raise ValueError(f"{definition} is defined in {found[definition]} and in {place}")
        module = modules[place]
        for used in _names(module.definitions[definition][0]):
            if used in module.outside:
                imports.add(module.outside[used])
            origin = place if used in module.definitions else module.own.get(used)
            if origin and found.get(used) != origin:
                modules.setdefault(origin, _read(origin))
                wanted.append((origin, used))
    texts = [text for place in _in_order(modules, name) for text in _chosen(modules[place], place, found)]
    return "\n\n\n".join([f'"""{root.docstring}\n"""', "\n".join(sorted(imports)), *texts]) + "\n"


def _read(name: str) -> _Module:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text()
    tree, lines = ast.parse(source), source.splitlines()
    module = _Module(ast.get_docstring(tree, clean=False) or "")
    for statement, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            _read_import(module, statement)
        elif not isinstance(statement, ast.Expr):
            first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", []))])
            last = following if isinstance(following, ast.Expr) else statement  # the docstring of a constant
            text = "\n".join(lines[first - 1 : last.end_lineno])
            module.definitions |= dict.fromkeys(_defined(statement), (statement, text))
    return module


def _read_import(module: _Module, statement: ast.Import | ast.ImportFrom) -> None:
    source = statement.module if isinstance(statement, ast.ImportFrom) else None
    for alias in statement.names:
        if source and source.partition(".")[0] == PACKAGE:
            module.own[alias.name] = PLAIN if source.startswith(KERNELS) else source
        else:
            text = f"from {source} import {alias.name}" if source else f"import {alias.name}"
            module.outside[alias.asname or alias.name] = text + (f" as {alias.asname}" if alias.asname else "")


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _names(definition: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(definition) if isinstance(node, ast.Name)}


def _in_order(modules: dict[str, _Module], name: str) -> Iterator[str]:
    """The names of modules, each after those that it uses."""
    seen = set[str]()

    def visit(place: str) -> Iterator[str]:
        if place in modules and place not in seen:
            seen.add(place)
            for used in modules[place].own.values():
                yield from visit(used)
            yield place

    return visit(name)


def _chosen(module: _Module, place: str, found: dict[str, str]) -> Iterator[str]:
    for definition, (_, text) in module.definitions.items():
        if found.get(definition) == place:
            yield text
