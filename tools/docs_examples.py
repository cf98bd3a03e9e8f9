"""Pages of the examples: a script is shown with its docstring above it, a notebook with what its cells printed."""

import ast
import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

from docs_links import ROOT, site_path


class Example(NamedTuple):
    """One page: its path on the site, its file in the repository, its Markdown and the pictures that it shows."""

    page: str
    source: str
    markdown: str
    pictures: dict[str, bytes]


def examples(root: Path = ROOT) -> list[Example]:
    """Scripts of ``examples/`` and all notebooks of the repository outside hidden folders and builds."""
    scripts = sorted((root / "examples").glob("*.py"))
    folders = (root / "examples", root / "notebooks", root / "docs")
    notebooks = sorted(path for folder in folders for path in folder.rglob("*.ipynb"))
    return [*(of_notebook(path, root) for path in notebooks), *(of_script(path, root) for path in scripts)]


def of_script(path: Path, root: Path = ROOT) -> Example:
    """Page of a script: the docstring as text, then the code after it."""
    code, source = path.read_text("utf-8"), str(path.relative_to(root))
    tree = ast.parse(code)
    about = ast.get_docstring(tree) or ""
    if about:
        code = "\n".join(code.splitlines()[tree.body[0].end_lineno :]).strip("\n")
    title = path.stem.replace("_", " ").capitalize()
    text = f"# {title}\n\n{about}\n\n`{source}`\n\n```python\n{code}\n```\n"
    return Example(site_path(source) or "", source, text, {})


def of_notebook(path: Path, root: Path = ROOT) -> Example:
    """Page of an executed notebook: its Markdown, its code, and the outputs that are stored in it."""
    source = str(path.relative_to(root))
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        text = _joined(cell["source"]).strip("\n")
        if cell["cell_type"] != "code":
            parts.append(text)
        elif text:
            parts.append(f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures) + 1}.png"
                pictures[f"examples/{name}"] = base64.b64decode(_joined(data["image/png"]))
                parts.append(f"![what the cell above draws]({name})")
            elif printed := _joined(output.get("text", data.get("text/plain", ""))).strip("\n"):
                parts.append(f"```text\n{printed}\n```")
    if not parts or not parts[0].startswith("# "):
        parts.insert(0, f"# {path.stem.replace('_', ' ').capitalize()}")
    return Example(site_path(source) or "", source, "\n\n".join([*parts, f"`{source}`"]) + "\n", pictures)


def _joined(text: Any) -> str:  # noqa: ANN401 - a notebook stores a string or its lines
    return text if isinstance(text, str) else "".join(text)
