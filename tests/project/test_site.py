"""The site's parts, without building it: every public name is described, and the two languages keep in step."""

import re
from pathlib import Path

import docs_api
import docs_examples
import docs_links
import pytest

import metarep

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```\w+\n.*?^```$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^<!-- (?:table|trust):.*?^<!-- /(?:table|trust) -->$", re.MULTILINE | re.DOTALL)


def levels(text: str) -> list[int]:
    return [len(mark) for mark in re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)]


def terms(path: Path) -> list[list[str]]:
    """Rows of a glossary's tables: four cells each."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if not row[0].startswith("---") and row[3] not in ("meaning", "含义")]


def test_every_public_name_has_a_docstring() -> None:
    assert docs_api.missing() == []


def test_a_docstring_that_python_made_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metarep.TrainSettings, "__doc__", "TrainSettings(steps: int = 1)")
    monkeypatch.setattr(metarep.draw_tasks, "__doc__", None)
    assert docs_api.missing() == [name for name in metarep.__all__ if name in ("TrainSettings", "draw_tasks")]


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    names = [name for group in docs_api.groups() for name in group.names]
    assert sorted(names) == sorted(metarep.__all__)
    pages = docs_api.pages()
    for name in metarep.__all__:
        described = [page for page, text in pages.items() if f"::: {docs_api.home(name)}\n" in text]
        assert len(described) == 1, f"{name} is described on {described}"
        assert f"[`{name}`][{docs_api.home(name)}]" in pages["api/index.md"]


def test_comments_are_the_groups() -> None:
    source = (
        '_HOME = {\n    # Images: pixels\n    "ImageBank": "images",\n    # Training\n    "train": "training",\n}\n'
    )
    first, second, *_ = docs_api.groups(source)
    assert first == ("Images", "Pixels", ["ImageBank"])
    assert (second.title, second.names, second.page) == ("Training", ["train"], "api/training.md")


def test_methods_of_private_bases_are_described_and_of_public_ones_not_again() -> None:
    assert {"fit", "predict", "answer"} <= set(docs_api.members("FewShotClassifier"))
    assert "embed" in docs_api.members("Learner")
    assert "embed" not in docs_api.members("Prototypes")


def test_links_lead_to_pages_of_the_site() -> None:
    text = "[a](../README.md#results) [b](../tests/conftest.py) [c](gone.md) `[d](x.md)`\n```text\n[e](x.md)\n```\n"
    assert docs_links.rewrite(text, "docs/search.md").splitlines()[0].startswith("[a](index.md#results) b [c](gone.md)")
    assert "[e](x.md)" in docs_links.rewrite(text, "docs/search.md")
    assert docs_links.rewrite("[a](../../README.zh-CN.md)", "docs/zh/glossary.md") == "[a](index.md)"


def test_a_notebook_shows_what_its_cells_printed(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "two.py").write_text('"""Adds."""\n\nprint(1 + 1)\n')
    (tmp_path / "examples" / "three.ipynb").write_text(
        '{"cells": [{"cell_type": "markdown", "source": ["# Three\\n", "text"]}, {"cell_type": "code", '
        '"source": "1 + 2", "outputs": [{"data": {"text/plain": "3"}}, {"data": {"image/png": "AAAA"}}]}]}'
    )
    notebook, script = docs_examples.examples(tmp_path)
    assert notebook.page == "examples/three.md"
    assert "# Three\ntext\n\n```python\n1 + 2\n```\n\n```text\n3\n```\n\n![" in notebook.markdown
    assert notebook.pictures == {"examples/three-1.png": b"\0\0\0"}
    assert "Adds.\n" in script.markdown
    assert "```python\nprint(1 + 1)\n```" in script.markdown


@pytest.mark.parametrize("page", ["your-own-images.md", "is-it-true.md", "glossary.md"])
def test_the_two_languages_keep_in_step(page: str) -> None:
    english, chinese = ((DOCS / folder / page).read_text("utf-8") for folder in ("", "zh"))
    assert levels(english) == levels(chinese)
    assert FENCE.findall(english) == FENCE.findall(chinese)
    assert TABLE.findall(english) == TABLE.findall(chinese)


def test_the_chinese_start_page_has_the_same_headings() -> None:
    english, chinese = ((ROOT / page).read_text("utf-8") for page in ("README.md", "README.zh-CN.md"))
    assert levels(english) == levels(chinese)


def test_the_glossaries_have_the_same_terms() -> None:
    english, chinese = terms(DOCS / "glossary.md"), terms(DOCS / "zh" / "glossary.md")
    assert len(english) > 60
    assert [(row[0], row[1], row[2]) for row in english] == [(row[1], row[0], row[2]) for row in chinese]


def test_terms_of_the_glossary_are_in_the_code() -> None:
    package = ROOT / "src" / "metarep"
    source = "\n".join(path.read_text("utf-8") for path in package.rglob("*.py"))
    names = [name for row in terms(DOCS / "glossary.md") for name in re.findall("`([^`]+)`", row[2])]
    assert [name for name in names if not re.search(rf"(?<![A-Za-z]){name}(?![A-Za-z])", source)] == []


def test_no_page_of_the_site_would_load_from_elsewhere(tmp_path: Path) -> None:
    hook = pytest.importorskip("docs_hook")
    (tmp_path / "a.html").write_text(
        '<a href="https://x.org"><script src="s.js"></script><link rel=canonical href="//x">'
    )
    assert hook.remote_assets(tmp_path) == []
    (tmp_path / "b.html").write_text('<script defer src="https://x.org/s.js"></script><link href="//x.org" rel="icon">')
    (tmp_path / "c.css").write_text("@import url(https://x.org/font.css);")
    assert len(hook.remote_assets(tmp_path)) == 3


def test_a_line_break_between_chinese_words_is_not_a_space() -> None:
    text = "一行，\n`code` 又一行\n接着\n\n- 项\n- 项\n```text\n甲\n乙\n```\n"
    assert docs_links.as_site_markdown(text) == "一行，`code` 又一行接着\n\n- 项\n- 项\n```text\n甲\n乙\n```\n"
