"""Fill the places of a Markdown text that markers of one kind set apart."""

import re
from collections.abc import Callable

NOTHING = "not measured yet"


def fill_places(text: str, kind: str, render: Callable[[str], str]) -> str:
    r"""Replace what is between the lines ``<!-- KIND:NAME -->`` and ``<!-- /KIND -->``, for every such pair.

    Args:
        text: Markdown.
        kind: the kind of the markers, such as ``timings``.
        render: gives the new content of a place from its name, as Markdown.

    Returns:
        The whole text. The markers stay.

    >>> print(fill_places("<!-- sum:two -->\nold\n<!-- /sum -->", "sum", lambda name: f"{name} is 2"))
    <!-- sum:two -->
    two is 2
    <!-- /sum -->
    """
    place = re.compile(rf"^<!-- {kind}:(?P<name>[\w-]+) -->\n.*?^<!-- /{kind} -->$", re.MULTILINE | re.DOTALL)
    return place.sub(lambda match: f"<!-- {kind}:{match['name']} -->\n{render(match['name'])}\n<!-- /{kind} -->", text)
