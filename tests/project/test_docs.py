"""The documentation against the code: what it says can be run, found, and is what the code does."""

import argparse
import ast
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tools.tables.fill import fill_page

from metarep.cli import COMMANDS, parser_of, top_parser
from metarep.data.datasets import DATASETS
from metarep.experiments.measurement.results import COLUMNS, RELIABILITY
from metarep.experiments.recipes import load_recipe, recipe_names
from metarep.methods import METHODS

ROOT = Path(__file__).parents[2]
FAST = (ROOT / "src" / "metarep" / "fast").exists()  # the folder may be deleted
PAGES = {str(path.relative_to(ROOT)): path for path in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")))}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TORCHRUN = {"--rdzv-backend", "--rdzv-endpoint", "--max-restarts", "--nnodes", "--nproc-per-node", "--standalone"}
CODE = re.compile(r"`([^`\n]+)`")
HOMES = (
    "data.images",
    "data.labels",
    "data.split",
    "data.task_index",
    "data.superclasses",
    "data.tasks",
    "data.batch",
    "data.datasets",
)
HOMES = (*HOMES, "encoders", "learners", "methods", "experiments.training")
HOMES = (*HOMES, "experiments.measurement.evaluation", "experiments.measurement.report")


def blocks(page: str, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(PAGES[page].read_text("utf-8")) if kind == language]


def bare(code: str) -> list[str]:
    """Lines without comments, which a translation may change."""
    return [re.sub(r"\s+# .*", "", line) for line in code.splitlines()]


def commands(page: str) -> list[list[str]]:
    """What follows ``metarep`` on every such line of the shell blocks and in every piece of inline code."""
    text = PAGES[page].read_text("utf-8")
    lines = [line for code in blocks(page, "shell") for line in code.splitlines()]
    lines += CODE.findall(FENCE.sub("", text))
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("metarep ")]


@cache
def flags_of(*names: str) -> frozenset[str]:
    """The flags of a command, those of its sub-parsers included."""
    return frozenset(flag for action in parser_of(*names)._actions for flag in action.option_strings)


def test_all_pages_are_seen() -> None:
    assert {"README.md", "README.zh-CN.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/architecture.md"} <= set(PAGES)
    assert len(blocks("README.md", "python")) >= 3
    assert len(commands("README.md")) >= 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "number"),
    [
        (page, number)
        for page in PAGES
        if page != "README.zh-CN.md" and "/zh/" not in page
        for number in range(len(blocks(page, "python")))
    ],
)
def test_python_runs_offline(page: str, number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an example of the documentation asked for the network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(page, "python")[number], f"{page}, python block {number + 1}", "exec"), {})


def test_tables_are_what_the_result_files_say() -> None:
    texts = {page: path.read_text("utf-8") for page, path in PAGES.items()}
    wrong = [page for page, text in texts.items() if fill_page(text, ROOT / "results") != text]
    assert wrong == [], "run python -m tools.tables.fill on these pages"


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page: str) -> None:
    for argv in commands(page):
        if argv[0] in COMMANDS and "--help" not in argv and (len(argv) > 1 or argv[0] in ("quickstart", "methods")):
            args = argparse.Namespace()
            top_parser().read(argv, args)
            if "recipe" in args and args.recipe not in (None, "RECIPE"):
                load_recipe(f"{args.method}-{args.recipe}" if "method" in args else args.recipe)
        else:
            assert argv[0] in {*COMMANDS, "--help"}, argv


@pytest.mark.parametrize("page", PAGES)
def test_flags_exist(page: str) -> None:
    method = page.removeprefix("docs/methods/").removesuffix(".md")
    places = [["train", method]] if method in METHODS else [[name] for name in COMMANDS]
    places += [["train", name] for name in METHODS if method not in METHODS]
    known = set().union(*(flags_of(*place) for place in places), TORCHRUN)
    named = set()
    for code in CODE.findall(FENCE.sub("", PAGES[page].read_text("utf-8"))):
        if not code.startswith("metarep "):  # those are parsed by the test above
            named |= set(re.findall(r"(?<!\S)--[a-z][a-z-]*", code))
    assert named <= known, f"{page} names flags that do not exist: {sorted(named - known)}"


def matches(pattern: str) -> Iterator[tuple[str, str]]:
    """Each page with what a pattern matches in it."""
    for page, path in PAGES.items():
        yield from ((page, match) for match in re.findall(pattern, path.read_text("utf-8"), re.MULTILINE))


def test_make_targets_exist() -> None:
    targets = set(re.findall("^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = list(matches(r"(?:^|`)make ([a-z]+)"))
    assert len(named) > 10
    assert [each for each in named if each[1] not in targets] == []


def test_links_lead_somewhere() -> None:
    links = [each for each in matches(r"\]\(([^)#\s]+)") if not each[1].startswith(("https://", "http://"))]
    assert len(links) > 50
    assert [(page, target) for page, target in links if not (PAGES[page].parent / target).exists()] == []


def test_files_named_in_code_exist() -> None:
    paths = list(matches(r"`((?:src|tests|docs|benchmarks)/[\w./-]+)`"))
    assert len(paths) > 20
    real = [
        (page, path) for page, path in paths if not re.search("NAME|METHOD", path) and (FAST or "/fast/" not in path)
    ]
    assert [(page, path) for page, path in real if not (ROOT / path).exists()] == []


def test_no_path_of_one_machine_is_named() -> None:
    assert list(matches(r"(?:^|[\s`(\"'])(/(?:home|root|work|tmp|Users)/|\.\./shared)")) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_page_that_is_true(name: str) -> None:
    page = f"docs/methods/{name}.md"
    assert page in PAGES, "a method needs a page"
    text = PAGES[page].read_text("utf-8")
    rows = dict(re.findall(r"^\| `--([a-z-]+)` \| `([^`]+)` \|", text, re.MULTILINE))
    parameters = inspect.signature(METHODS[name]).parameters.values()
    own = {p.name.replace("_", "-"): shown(p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert rows == own, "the flags of the page are not those of the signature"
    assert f"metarep train {name} --help" in text
    assert f"<!-- table:omniglot method={name} -->" in text
    for recipe in recipe_names(f"{name}-"):
        assert recipe in text, f"{page} does not name recipe {recipe}"
    for value in METHODS[name].defaults.values():
        assert f"{value}" in text
    for readme in ("README.md", "README.zh-CN.md"):
        assert f"[{name}]({page})" in PAGES[readme].read_text("utf-8")


def shown(default: object) -> str:
    """A default as ``--help`` shows it."""
    return "none" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def test_every_data_set_and_column_is_explained() -> None:
    sets = PAGES["docs/datasets.md"].read_text("utf-8")
    assert [name for name in DATASETS if f"`{name}" not in sets] == []
    columns = PAGES["docs/protocol.md"].read_text("utf-8")
    assert [each for each in (*COLUMNS, *RELIABILITY) if not re.search(rf"^\| .*`{each}`.* \|", columns, re.M)] == []


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_tree_is_the_tree(page: str) -> None:
    """Every path of the README's tree exists, and every file of the package is in it."""
    (tree,) = [code for code in blocks(page, "text") if "src/metarep/" in code]
    top = [line.split()[0] for line in tree.splitlines() if not line.startswith(" ")]
    inside = [line.split()[0] for line in tree.splitlines() if line.startswith("  ")]
    assert [path for path in top if not (ROOT / path).exists()] == []
    package = ROOT / "src" / "metarep"
    there = {path.name + "/" * path.is_dir() for path in package.iterdir() if path.name != "__pycache__"}
    assert {name for name in inside if FAST or name != "fast/"} == {n for n in there if n.endswith(("/", ".py"))}


def test_the_architecture_names_files_that_exist() -> None:
    """Two spaces more are one folder deeper. That no file is missing is a question for tools/rooms.py."""
    (tree,) = [code for code in blocks("docs/architecture.md", "text") if "learners/" in code]
    path: list[str] = []
    for line in tree.splitlines():
        names = re.match(r"((?:  )*)([\w./]+)(?: +\S|$)", line)
        assert names, line
        path = [*path[: len(names[1]) // 2], names[2]]
        assert (ROOT / "/".join(path)).exists() or (not FAST and "fast/" in path), line


def test_signatures_of_the_architecture_are_those_of_the_code() -> None:
    (code,) = blocks("docs/architecture.md", "pyi")
    modules = [import_module(f"metarep.{home}") for home in HOMES]
    for node in ast.parse(code).body:
        assert isinstance(node, ast.ClassDef | ast.FunctionDef)
        real = next((getattr(module, node.name) for module in modules if hasattr(module, node.name)), None)
        assert real is not None, f"there is no {node.name}"
        if isinstance(node, ast.FunctionDef):
            assert written(node) == coded(real), node.name
            continue
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                assert written(part) == coded(getattr(real, part.name)), f"{node.name}.{part.name}"
            elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                fields = [name for kind in real.__mro__ for name in inspect.get_annotations(kind)]
                assert part.target.id in fields, f"{node.name} has no {part.target.id}"


def written(node: ast.FunctionDef) -> tuple[list[str], list[str]]:
    return [arg.arg for arg in node.args.args], [arg.arg for arg in node.args.kwonlyargs]


def coded(function: Callable[..., Any]) -> tuple[list[str], list[str]]:
    parameters = inspect.signature(function).parameters.values()
    return (
        [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD],
        [p.name for p in parameters if p.kind is p.KEYWORD_ONLY],
    )


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_no_installation_of_the_checkout_replaces_the_editable_one(page: str) -> None:
    lines = [line for code in blocks(page, "shell") for line in code.splitlines() if "pip install" in line]
    own = [line for line in lines if re.search(r"(?<=\s)'?\.(?:\[|'|\s|$)", line)]
    assert [line for line in own if " --editable " not in line and " -e " not in line] == []
    assert len(own) >= 2 or not page.startswith("README")


def test_after_make_the_readme_says_how_the_command_is_called() -> None:
    for page in ("README.md", "README.zh-CN.md"):
        first, then = (
            PAGES[page].read_text("utf-8").find(text) for text in ("\nmake quickstart\n", ".venv/bin/metarep")
        )
        assert 0 < first < then < PAGES[page].read_text("utf-8").find("\nmetarep fit")
        assert ["source .venv/bin/activate"] in [code.split("\n")[:-1] for code in blocks(page, "shell")]


def test_contributing_counts_the_lines_of_a_method() -> None:
    """As many as the files name it; who adds a method follows the list."""
    homes = {"src/metarep/methods/__init__.py": 3, "src/metarep/__init__.py": 2}
    for path, lines in homes.items():
        named = [line for line in (ROOT / path).read_text("utf-8").splitlines() if "BYOL" in line]
        assert len(named) == lines, f"CONTRIBUTING.md and docs/architecture.md say {lines}"
        assert f"`{path}`" in PAGES["CONTRIBUTING.md"].read_text("utf-8")


def test_the_chinese_readme_has_the_same_code_tables_and_tree() -> None:
    english, chinese = "README.md", "README.zh-CN.md"
    for language in ("python", "shell"):
        assert [bare(code) for code in blocks(english, language)] == [bare(code) for code in blocks(chinese, language)]
    markers = [re.findall("<!-- table:.*-->", PAGES[page].read_text("utf-8")) for page in (english, chinese)]
    assert markers[0] == markers[1]
    trees = [
        [line[: len(line) - len(line.lstrip())] + line.split()[0] for line in blocks(page, "text")[0].splitlines()]
        for page in (english, chinese)
    ]
    assert trees[0] == trees[1]
