"""The shape of the source: rooms on storeys, imports that run downward, short files, nothing twice."""

import ast
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tools.rooms import ROOT, SOURCE, STOREYS, main

FILES = sorted(SOURCE.rglob("*.py"))
HEIGHT = {room: storey for storey, rooms in enumerate(STOREYS) for room in rooms}


def name_of(path: Path) -> str:
    return ".".join(["metarep", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


SKIPPED = re.compile(r'import |from |#|"""|"\w+",$')
MODULES = {name_of(path): path for path in FILES}


def imports(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, wherever in it, but for what only a type checker reads."""
    todo: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo.extend(node.orelse)
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "metarep":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "metarep")
        todo.extend(ast.iter_child_nodes(node))


@cache
def graph() -> dict[str, set[str]]:
    """Every module's imports; read when a test asks, since each worker collects this file."""
    return {name: set(imports(path)) - {"metarep"} for name, path in MODULES.items()}


def room(module: str) -> str:
    return module.split(".")[1]


def forbidden(module: str, other: str) -> str:
    """What is wrong with an import: one line, or nothing."""
    here, there = room(module), room(other)
    if there == "fast":
        return "" if here == "fast" else "what is not in fast/ goes through machine/faster.py"
    if here == "fast":
        return "" if HEIGHT[there] <= HEIGHT["learners"] else "that is above learners"
    return "" if here == there or HEIGHT[there] < HEIGHT[here] else "that is not below it"


def test_imports_run_downward():
    modules = [name for name in MODULES if name.count(".") and not name.endswith("__main__")]
    pairs = [(module, other, forbidden(module, other)) for module in modules for other in graph()[module]]
    assert len(pairs) > 500
    assert [f"{module} imports {other}: {why}" for module, other, why in pairs if why] == []


def test_no_imports_run_in_a_circle():
    """Modules of which none can be taken away first: each imports another of them."""
    left = {name: {other for other in others if other in MODULES} for name, others in graph().items()}
    while free := [name for name, others in left.items() if not others]:
        for name in free:
            del left[name]
        for others in left.values():
            others.difference_update(free)
    while unused := left.keys() - {other for others in left.values() for other in others}:
        for name in unused:
            del left[name]
    assert not left, f"circles among {sorted(left)}"


def test_the_top_has_few_entries():
    entries = [path.name for path in SOURCE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 17, sorted(entries)


def test_files_are_short():
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > 300}
    assert statistics.median(lines.values()) <= 110


def test_no_nine_lines_stand_twice():
    """Nine lines of code in a row, without blank lines, indentation, imports, comments and docstrings of one line.

    A string that is an argument is a line of code: calls that differ only in their texts, as those that declare flags
    do, are not the same code. A name alone in a line of ``__all__`` is data, and is left out.
    """
    seen: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, path in MODULES.items():
        lines = [(i, line.strip()) for i, line in enumerate(path.read_text("utf-8").splitlines(), 1) if line.strip()]
        code = [(i, line) for i, line in lines if not SKIPPED.match(line)]
        for start in range(len(code) - 8):
            window = tuple(line for _, line in code[start : start + 9])
            seen[window].append(f"{name}:{code[start][0]}")
    assert not [spots for spots in seen.values() if len(spots) > 1]


def test_the_trees_of_the_documentation_are_as_the_source():
    assert main(["--check"]) == 0, f"python -m tools.rooms, in {ROOT.name}, writes them"
