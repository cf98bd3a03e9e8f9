"""Rules for the sources, read with ``ast``: who may name a flag, and who may use a private name."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import metarep

ROOT = Path(metarep.__file__).parent
FLAG = re.compile("--[a-z]")
SAYS = re.compile(r"(Error|Warning|Advice|Call|warn)$")

# Private names of torch and of the standard library, where there is no public one.
ALLOWED = {
    *("_foreach_copy_", "_foreach_lerp_", "_foreach_mul", "_foreach_norm"),
    *("_current_level", "_C", "_functorch", "_version", "_BatchNorm", "_load_from_state_dict"),
    *("_buffers", "_modules", "_parameters", "_forward_hooks", "_forward_pre_hooks"),
    *("_convolution_pointwise", "_reorder_convolution_weight", "_get_backend", "_timeout"),
    *("_ArgumentGroup", "_SubParsersAction", "_actions", "_action_groups", "_group_actions", "_option_string_actions"),
    "_replace",  # of a named tuple
}


@cache
def sources() -> dict[str, ast.Module]:
    """The parsed files by their path; read when a test asks, since each worker collects this file."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8")) for path in sorted(ROOT.rglob("*.py"))}


def last_name(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def messages(tree: ast.Module) -> Iterator[ast.Constant]:
    """String literals of what is raised, warned of or said as advice."""
    todo: list[tuple[ast.AST, bool]] = [(tree, False)]
    while todo:
        node, inside = todo.pop()
        inside |= isinstance(node, ast.Raise) or (
            isinstance(node, ast.Call) and bool(SAYS.search(last_name(node.func)))
        )
        if inside and isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node
        todo.extend((part, inside) for part in ast.iter_child_nodes(node))


def private_names(tree: ast.Module) -> Iterator[str]:
    """Private attributes of something else than ``self`` that this module does not define itself."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    own |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value)
    }
    for node in ast.walk(tree):
        private = isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr) and not _is_self(node.value)
        if private and node.attr not in own | ALLOWED:
            yield f"line {node.lineno}: {ast.unparse(node)}"


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_only_the_command_line_names_flags() -> None:
    wrong = [
        f"{module} line {each.lineno}: {each.value!r}"
        for module, tree in sources().items()
        if Path(module).parts[0] != "cli"
        for each in messages(tree)
        if FLAG.search(each.value)
    ]
    assert wrong == [], "an error gives advice as a field, and the command line words it as flags"


def test_no_module_uses_the_private_names_of_another() -> None:
    assert [f"{module} {name}" for module, tree in sources().items() for name in private_names(tree)] == []


def test_the_rules_catch_what_they_are_for() -> None:
    raised = ast.parse("def f(x):\n    raise MetarepError(f'{x} is bad; leave it out with --skip-bad')")
    assert any(FLAG.search(each.value) for each in messages(raised))
    warned = ast.parse("warnings.warn('it collapsed; end it with --stop-on-collapse')")
    assert any(FLAG.search(each.value) for each in messages(warned))
    assert not FLAG.search("a two-way split -- or none")
    assert list(private_names(ast.parse("model._state"))) == ["line 1: model._state"]
