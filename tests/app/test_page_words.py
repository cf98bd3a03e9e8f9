"""The texts of the page: both languages have the same ones, and the page uses exactly these."""

import re
from importlib.resources import files

import pytest

from metarep.experiments.page.pages import render

PAGE = files("metarep") / "app" / "page"
WEB = files("metarep") / "app" / "web" / "page"  # the page without a server, which has the same texts
DOCUMENT = files("metarep") / "app" / "templates"  # of both
LANGUAGES = ("english.js", "chinese.js")
COMPUTED = ("error.", "repeat.", "repeats.")  # the starts of keys that a script puts together
CHINESE_ONLY = {"error.file"}  # in English the server's own message is shown


def texts(name: str) -> dict[str, str]:
    return dict(re.findall(r'^  "([\w.]+)": "(.*)",$', (PAGE / name).read_text("utf-8"), re.M))


def singular(key: str) -> bool:
    return key.endswith(".one")


def test_both_languages_have_the_same_texts_and_blanks() -> None:
    english, chinese = map(texts, LANGUAGES)
    assert len(english) > 100
    assert {key for key in english if not singular(key)} == set(chinese) - CHINESE_ONLY
    for key, text in english.items():
        other = english[key.removesuffix(".one")] if singular(key) else chinese[key]
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", other)) - (
            {"{n}"} if singular(key) else set()
        )


def test_the_page_uses_every_text_and_no_other() -> None:
    parts = [part for folder in (PAGE, WEB, DOCUMENT) for part in folder.iterdir() if part.is_file()]
    page = "".join(part.read_text("utf-8") for part in parts if part.name not in LANGUAGES)
    known = {key for key in texts("english.js") if not singular(key)}
    used = set(re.findall(r'data-(?:word|hint|label)="([\w.]+)"|\bsay\("([\w.]+)"', page))
    assert {one or other for one, other in used} <= known | CHINESE_ONLY
    quoted = set(re.findall(r'"([\w.]+)"', page))
    assert {key for key in known - quoted if not key.startswith(COMPUTED)} == set()


@pytest.mark.parametrize(("served", "base", "own"), [(True, "/page/", ()), (False, "./", ("web.css",))])
def test_one_document_is_both_pages_with_files_that_are_there(served: bool, base: str, own: tuple[str, ...]) -> None:
    page = str(render("index.html", "metarep.app", served=served))
    assert page.startswith("<!doctype html>\n<html lang")
    assert re.findall(r' (?:src|href)="([^#"]+)"', page) == [
        base + name for name in ("icon.svg", "page.css", *own, "page.js")
    ]
    assert all((WEB / name).is_file() or (PAGE / name).is_file() for name in ("icon.svg", "page.css", *own, "page.js"))
    assert ("queue-dialog" in page, "Content-Security-Policy" in page) == (served, not served)
    assert page.count("<section") == page.count("</section>") == (6 if served else 3)
    assert page.count("<dialog") == page.count("</dialog>") == (5 if served else 3)
