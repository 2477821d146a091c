"""How large the parts of the code may be: what outgrows its limit is divided, and no limit is raised."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("harness", "protocol", "tables", "worker")
MODULE_LINES = 350
TABLE_LINES = 400
HELPER_LINES = 400
"""Of what tests share."""
FUNCTION_LINES = 45
CLASS_METHODS = 20
PACKAGE_MODULES = 12

MODULES = tuple(path for name in PACKAGES for path in sorted((ROOT / "perf_tests" / name).rglob("*.py")))
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT / "perf_tests"))


@cache
def definitions() -> tuple[tuple[Path, ast.stmt], ...]:
    """All classes and functions, each with its module."""
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES)
    return tuple(
        (path, node)
        for path, tree in trees
        for node in statements(tree)
        if isinstance(node, (ast.ClassDef, *FUNCTION))
    )


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Those in `node`, also within each other. Expressions, most of a tree, hold none."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            yield from statements(child)


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for path, node in definitions():
        if isinstance(node, ast.ClassDef):
            yield path, node


def test_module_is_short() -> None:
    lines = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert len(lines) > 100
    limits = {name: TABLE_LINES if name.startswith("tables/") else MODULE_LINES for name in lines}
    assert {name: count for name, count in lines.items() if count > limits[name]} == {}


def test_helper_of_tests_is_short() -> None:
    helpers = [path for path in (ROOT / "perf_tests" / "unit").rglob("*.py") if path.stem[:5] != "test_"]
    lines = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in helpers}
    assert len(lines) > 20
    assert {name: count for name, count in lines.items() if count > HELPER_LINES} == {}


def test_function_is_short() -> None:
    lines = {
        f"{named(path)}: {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, node in definitions()
        if isinstance(node, FUNCTION)
    }
    assert len(lines) > 1000
    assert {name: count for name, count in lines.items() if count > FUNCTION_LINES} == {}


def test_class_has_few_methods() -> None:
    methods = {
        f"{named(path)}: {node.name}": sum(isinstance(each, FUNCTION) for each in node.body)
        for path, node in classes()
    }
    assert len(methods) > 200
    assert {name: count for name, count in methods.items() if count > CLASS_METHODS} == {}


def test_package_has_few_modules() -> None:
    modules = Counter(named(path.parent) for path in MODULES if path.name != "__init__.py")
    assert len(modules) > 20
    assert {name: count for name, count in modules.items() if count > PACKAGE_MODULES} == {}


def test_class_names_are_unique() -> None:
    names = Counter(node.name for _, node in classes())
    assert {name: count for name, count in names.items() if count > 1} == {}
