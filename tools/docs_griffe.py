"""Docstrings as the API pages need them: Sphinx roles become links, doctests code, shared parameter lines one each."""

import inspect
import re
from typing import Any

import docs_api
import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):`~?(?P<target>[\w.]+)`")
DOCTEST = re.compile(r"^(?P<code>>>> .*(?:\n.+)*)", re.MULTILINE)
SECTION = re.compile(r"^(?:Args|Attributes):\n(?:    .*\n?|\n(?=    ))+", re.MULTILINE)
SHARED = re.compile(r"^    (?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)+): (?P<about>.*(?:\n {5,}.*)*)", re.MULTILINE)


class PlainDocstrings(griffe.Extension):
    """Rewrites the docstrings of what the API pages describe, before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:  # noqa: ANN401 - griffe's own arguments
        """Rewrite one docstring. A method without one gets that of the base class."""
        name, member = docs_api.anchors().get(obj.path, ("", ""))
        if obj.docstring is None and member and (text := docs_api.member_docstring(name, member)):
            obj.docstring = griffe.Docstring(text, parent=obj)
        if obj.docstring is not None:
            obj.docstring.value = rewrite(inspect.cleandoc(obj.docstring.value), obj.path)


def rewrite(text: str, path: str) -> str:
    """Markdown of a docstring of the object at ``path``."""
    text = SECTION.sub(lambda match: SHARED.sub(_apart, match[0]), text)
    text = ROLE.sub(lambda match: link(match["target"], path), text)
    return DOCTEST.sub(r"```pycon\n\g<code>\n```", text)


def link(target: str, path: str) -> str:
    """A name as a link to its description, or as code where the API pages have none.

    Args:
        target: what a Sphinx role names: a full path, a name of the same module, or a member of the same class.
        path: the object whose docstring it is.
    """
    described = docs_api.anchors()
    scopes = [path.rsplit(".", depth)[0] for depth in range(path.count(".") + 1)]
    public = {name: full for full, (name, member) in described.items() if not member}
    first, _, rest = target.removeprefix("metarep.").partition(".")
    of_public = f"{public[first]}{'.' * bool(rest)}{rest}" if first in public else target
    names = [target, *(f"{scope}.{target}" for scope in scopes), of_public]
    there = next((name for name in names if name in described), None)
    shown = target.rsplit(".", 1)[-1]
    return f"[`{shown}`][{there}]" if there else f"`{shown}`"


def _apart(match: re.Match[str]) -> str:
    return "\n".join(f"    {name}: {match['about']}" for name in match["names"].split(", "))
