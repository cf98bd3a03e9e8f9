"""Links between files of the repository, rewritten as links between pages of the site.

The Markdown files link as a reader of the repository needs it. The site has other addresses for some of them, and no
page for others (tests, sources). A link to such a file becomes plain text; a link to a file that does not exist stays,
and the strict build refuses it.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = {  # pages whose source does not lie in docs/
    "README.md": "index.md",
    "README.zh-CN.md": "zh/index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
}
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]*(?:\n[^\]\n]+)?)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
FENCED = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
CHINESE = re.compile(
    r"(?<=[\u3001-\u9fff\uff00-\uffef])\n *(?=[\u3001-\u9fff\uff00-\uffef])"
    r"|(?<=[\u3001\u3002\uff0c\uff1a\uff1b\uff09])\n *(?=[A-Za-z`\[(])"
)
BULLET = re.compile(r"^(?![-*] |\d+\. |\s|\||#|<)(.+)\n(?=(?:[-*]|1\.) )", re.MULTILINE)


def site_path(source: str) -> str | None:
    """Path of the page that shows this file of the repository, relative to the site's pages; None without one."""
    if source in OUTSIDE:
        return OUTSIDE[source]
    folder, name = posixpath.split(source)
    if source.startswith("docs/"):
        return source.removeprefix("docs/")
    if name.endswith(".ipynb") or (folder == "examples" and name.endswith(".py")):
        return f"examples/{posixpath.splitext(name)[0]}.md"
    return None


def source_path(page: str) -> str:
    """Path in the repository of the file that a page is made of."""
    return next((source for source, there in OUTSIDE.items() if there == page), f"docs/{page}")


def rewrite(text: str, source: str, root: Path = ROOT) -> str:
    """Markdown of a file of the repository as the site needs it: links lead to pages.

    Args:
        text: Markdown.
        source: the file's path in the repository.
        root: the repository.

    >>> rewrite("[the guide](docs/search.md#fit), [a test](tests/conftest.py), [gone](docs/x.md)", "README.zh-CN.md")
    '[the guide](../search.md#fit), a test, [gone](../x.md)'
    """
    page = site_path(source) or source

    def lead(match: re.Match[str]) -> str:
        target = match["target"]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        where = site_path(there)
        if where is None:
            return match["text"] if (root / there).exists() else match[0]
        return f"[{match['text']}]({posixpath.relpath(where, posixpath.dirname(page))}{match['anchor'] or ''})"

    return _outside_code(text, lambda part: LINK.sub(lead, part))


def as_site_markdown(text: str) -> str:
    """Markdown as GitHub reads it, changed where the site's parser differs.

    A list may follow a line of text without a blank line, Markdown inside ``<details>`` is Markdown, and a line that
    ends between two Chinese characters puts no space between them.
    """

    def change(part: str) -> str:
        return CHINESE.sub("", BULLET.sub(r"\1\n\n", part.replace("<details>", '<details markdown="1">')))

    return _outside_code(text, change)


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    parts = FENCED.split(text)
    return "".join(part if part.startswith("```") else change(part) for part in parts)
