"""The trees of README.md, README.zh-CN.md and docs/architecture.md, from the rooms of ``src/metarep`` themselves.

    python -m tools.rooms            # write them
    python -m tools.rooms --check    # only compare; 1 if one is stale

The caption of a room or a file is the first sentence of its docstring. The order of the rooms, and their captions in
Chinese, are in ``rooms.toml``.
"""

import argparse
import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "metarep"
FACTS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
STOREYS: list[list[str]] = FACTS["storeys"]
PAGES = {"README.md": "english", "README.zh-CN.md": "chinese", "docs/architecture.md": "files"}
ROLE = re.compile(r":\w+:`~?([^`]+)`")
MARKED = re.compile(r"(<!-- rooms -->\n```text\n).*?(\n```\n<!-- /rooms -->)", re.DOTALL)


def caption(path: Path) -> str:
    """The first sentence of a module's docstring, or of a package's, as plain text without its full stop."""
    module = path / "__init__.py" if path.is_dir() else path
    text = ast.get_docstring(ast.parse(module.read_text("utf-8"))) or ""
    first = re.split(r"\.(?= [A-Z`])", text.splitlines()[0])[0] if text else ""
    return ROLE.sub(r"\1", first).rstrip(".").replace("``", "")


def rooms() -> list[Path]:
    """What lies at the top of the package: the public names, then the rooms from the ground up, then ``fast/``."""
    names = ["__init__", "__main__", *(room for storey in STOREYS for room in storey), "fast"]
    paths = [SOURCE / name if (SOURCE / name).is_dir() else SOURCE / f"{name}.py" for name in names]
    return [path for path in paths if path.exists()]


def tree(kind: str) -> str:
    """The lines of a tree: ``english`` and ``chinese`` name the rooms, ``files`` each file of each room."""
    lines = ["src/metarep/"]
    for path in rooms():
        text = FACTS["chinese"][path.stem] if kind == "chinese" else caption(path)
        lines.append(line(path, 1, text))
        if kind == "files" and path.is_dir():
            lines.extend(inside(path, 2))
    return "\n".join(lines)


def inside(folder: Path, depth: int) -> list[str]:
    """The lines of the files of a folder, then of its folders with their own files."""
    modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    packages = [path for path in sorted(folder.iterdir()) if (path / "__init__.py").exists()]
    lines = [line(path, depth, caption(path)) for path in modules]
    for path in packages:
        lines += [line(path, depth, caption(path)), *inside(path, depth + 1)]
    return lines


def line(path: Path, depth: int, text: str) -> str:
    name = "  " * depth + (f"{path.name}/" if path.is_dir() else path.name)
    return f"{name:<{22 if depth == 1 else 34}}{text}".rstrip()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.rooms", description="Fill the trees of the documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a tree is stale")
    args = parser.parse_args(argv)
    stale = []
    for page, kind in PAGES.items():
        path = ROOT / page
        text = path.read_text("utf-8")
        new = MARKED.sub(lambda match, kind=kind: match[1] + tree(kind) + match[2], text)
        if new != text:
            stale.append(page)
            if not args.check:
                path.write_text(new, "utf-8")
    if stale:
        print(f"{'stale' if args.check else 'written'}: {', '.join(stale)}")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
