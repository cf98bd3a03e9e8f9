"""The public names of metarep: their groups, their homes, which have no docstring, and a page of each group.

Nothing is listed here by hand. Names are ``metarep.__all__``; a comment on a line of its own in
``src/metarep/__init__.py`` begins a group and is its title.
"""

import ast
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import metarep

MEMBER = (FunctionType, property, classmethod, staticmethod)


class Group(NamedTuple):
    """Public names that belong together."""

    title: str
    about: str
    names: list[str]

    @property
    def page(self) -> str:
        """Path of the group's page on the site."""
        return f"api/{re.sub(r'[^a-z0-9]+', '-', self.title.lower()).strip('-')}.md"


def groups(source: str | None = None) -> list[Group]:
    """Public names in the order of ``__init__.py``, under the comments that stand above them there.

    A comment ``# title: more about it`` has a title and a sentence. Names before the first comment, and all where there
    is none, are "Public names". Groups of one title are one.
    """
    if source is None:
        source = Path(inspect.getfile(metarep)).read_text("utf-8")
    comment: list[str] = []
    titles: dict[str, Group] = {}
    seen: set[str] = set()
    group = ("Public names", "")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.strip() == token.string:
            comment.append(token.string.strip("#-= "))
        elif token.type == tokenize.STRING and token.string[0] in "'\"":
            name = ast.literal_eval(token.string)
            if name not in metarep.__all__ or name in seen:
                continue
            if comment:
                title, _, about = " ".join(comment).partition(": ")
                group, comment = (title[:1].upper() + title[1:], about[:1].upper() + about[1:]), []
            seen.add(name)
            titles.setdefault(group[0], Group(*group, [])).names.append(name)
        elif token.type == tokenize.NAME:
            comment = []  # a comment of code, not of names
    if rest := [name for name in metarep.__all__ if name not in seen]:
        titles.setdefault("Public names", Group("Public names", "", [])).names.extend(rest)
    return list(titles.values())


@cache
def home(name: str) -> str:
    """Full path of a public name, where it is defined: ``metarep.methods.protonet.ProtoNet``."""
    value = getattr(metarep, name)
    if inspect.ismodule(value):
        return value.__name__
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    return next(f"{module}.{attribute}" for module, attribute, _ in _constants() if _is(module, attribute, value))


def _is(module: str, attribute: str, value: object) -> bool:
    return getattr(sys.modules[module], attribute, None) is value


@cache
def _constants() -> list[tuple[str, str, str | None]]:
    """Each constant of the modules that public names come from: module, name, and the string below it."""
    for name in metarep.__all__:
        getattr(metarep, name)
    return list(_read_constants())


def _read_constants() -> Iterator[tuple[str, str, str | None]]:
    for module in [name for name in sys.modules if name.split(".")[0] == "metarep"]:
        file = getattr(sys.modules[module], "__file__", None)
        if file is None or not file.endswith(".py"):
            continue
        body = ast.parse(Path(file).read_text("utf-8")).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name):
                string = after.value if isinstance(after, ast.Expr) else None
                below = string.value if isinstance(string, ast.Constant) and isinstance(string.value, str) else None
                yield module, target.id, below


def docstring(name: str) -> str | None:
    """Docstring of a public name. That of a dataclass or named tuple which Python wrote itself does not count."""
    value = getattr(metarep, name)
    if inspect.ismodule(value):
        return value.__doc__
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return next((text for module, attribute, text in _constants() if f"{module}.{attribute}" == home(name)), None)
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    made = text is not None and text.startswith((f"{name}(", "Create and return", "Alias for"))
    return None if made else text


def members(name: str) -> list[str]:
    """Public methods and properties of a public class: its own, and those of bases that are not public themselves."""
    value = getattr(metarep, name)
    if not inspect.isclass(value):
        return []
    public = [getattr(metarep, each) for each in metarep.__all__]
    bases = [kind for kind in value.__mro__ if kind is value or (_ours(kind) and kind not in public)]
    members = dict.fromkeys(each for kind in bases for each, what in vars(kind).items() if isinstance(what, MEMBER))
    return [each for each in members if not each.startswith("_")]


def member_docstring(name: str, member: str) -> str | None:
    """Docstring of a method of a public class, or what a base of ours says of it."""
    for kind in getattr(metarep, name).__mro__:
        what = vars(kind).get(member)
        if what is not None and _ours(kind) and (text := inspect.getdoc(getattr(what, "__func__", what))):
            return text
    return None


def _ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "metarep"


def missing() -> list[str]:
    """Public names, and methods of public classes, without a docstring."""
    names = [name for name in metarep.__all__ if not docstring(name)]
    methods = [(name, each) for name in metarep.__all__ for each in members(name)]
    return names + [f"{name}.{each}" for name, each in methods if not member_docstring(name, each)]


@cache
def anchors() -> dict[str, tuple[str, str]]:
    """What the API pages describe: full path to (public name, member or nothing)."""
    described: dict[str, tuple[str, str]] = {}
    for name in metarep.__all__:
        described[home(name)] = name, ""
        described.update({f"{home(name)}.{each}": (name, each) for each in members(name)})
    return described


def first_sentence(text: str) -> str:
    """First sentence of a docstring, on one line of a table."""
    line = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s(?=[A-Z`])", line)[0].replace("|", "\\|")


def pages() -> dict[str, str]:
    """Markdown of the API pages, by their path on the site: an index, and a page of each group."""
    index = ["# API reference", "", "Every public name of `metarep`, by what one does with it.", ""]
    made: dict[str, Any] = {}
    for group in groups():
        index += [f"## [{group.title}]({Path(group.page).name})", "", *([group.about, ""] if group.about else [])]
        index += ["| name | what it is or does |", "| --- | --- |"]
        page = [f"# {group.title}", "", group.about, ""]
        for name in group.names:
            index.append(f"| [`{name}`][{home(name)}] | {plain(first_sentence(docstring(name) or ''))} |")
            options = [f"heading: {name}", f"toc_label: {name}", f"members: {members(name) or 'false'}"]
            page += [f"::: {home(name)}", "    options:", *(f"      {option}" for option in options), ""]
        made[group.page] = "\n".join(page)
        index.append("")
    return {"api/index.md": "\n".join(index), **made}


def plain(text: str) -> str:
    """Sphinx roles as code.

    >>> plain("As :class:`~metarep.index.Index` has it.")
    'As `Index` has it.'
    """
    return re.sub(r":[a-z]+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
