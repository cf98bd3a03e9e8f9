"""The page of ``metarep serve`` in a real browser: from an empty model to answers, corrections and refusals.

Screenshots are written to the folder in METAREP_SCREENSHOTS, or else to a temporary folder of pytest.
"""

import io
import itertools
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import windows
from browser import BROWSER, FAINT, WIDE
from pairs import pair
from serving import ENCODER, KINDS, drawing, server

pytest.importorskip("playwright.sync_api", reason="the browser is controlled by playwright")
pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'metarep[serve]'")
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium on this machine"),
]
EXPECTED = ("422", "401", "501")  # the browser logs these refusals, and the page shows them as text
TOKEN = "a token for these tests"


def window(chromium: Any, address: str, **options: Any) -> AbstractContextManager[Any]:
    """A window with the page of a server; the browser logs the refusals that are expected."""

    def fine(complaint: str) -> bool:
        return any(f"status of {code}" in complaint for code in EXPECTED)

    return windows.window(chromium, address, fine, own=("data:",), **options)


def files(kind: str, *seeds: int) -> list[dict[str, Any]]:
    return [{"name": f"{kind}{i}.png", "mimeType": "image/png", "buffer": drawing(kind, i)} for i in seeds]


def choose(page: Any, press: Callable[[], None], chosen: list[dict[str, Any]]) -> None:
    with page.expect_file_chooser() as chooser:
        press()
    chooser.value.set_files(chosen)


def add_class(page: Any, kind: str, *seeds: int) -> None:
    page.get_by_label("A new class").fill(kind)
    choose(page, lambda: page.keyboard.press("Enter"), files(kind, *seeds))
    page.get_by_role("article", name=kind).wait_for()


def until(page: Any, script: str) -> None:
    """Wait until an expression is true; Playwright's own function needs eval, which the page forbids."""
    for _ in range(300):
        if page.evaluate(script):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"it did not become true: {script}")


SEEN = "[...document.querySelectorAll('[data-picture]')].every(each => each.naturalWidth)"


def ask(page: Any, chosen: list[dict[str, Any]]) -> None:
    choose(page, lambda: page.get_by_role("button", name="Choose a file").click(), chosen)


def verdict(page: Any, text: str) -> None:
    page.locator(".verdict", has_text=text).wait_for()


def test_from_nothing_to_an_answer_a_correction_and_a_bad_file(chromium: Any, pictures: Path, tmp_path: Path) -> None:
    with (
        server(tmp_path / "letters", "--encoder", ENCODER) as (_, address),
        window(chromium, address) as page,
    ):
        page.get_by_role("heading", name="letters").wait_for()
        assert page.get_by_text("Teach it a few of your own images").is_visible()
        assert not page.locator("#ask").is_visible()
        page.screenshot(path=pictures / "1-empty.png")

        add_class(page, "ring", 0, 1, 2)
        assert not page.locator("#ask").is_visible(), "with one class there is nothing to decide"
        add_class(page, "cross", 0, 1, 2)
        page.locator("#ask").wait_for()
        assert not page.get_by_text("Teach it a few of your own images").is_visible()
        ask(page, files("ring", 9))
        verdict(page, "ring")
        assert page.locator("#answer .near li").count() == 5
        assert page.locator("#answer .near .label").first.inner_text() == "ring"
        page.screenshot(path=pictures / "2-answer.png")

        ask(page, files("comb", 9))  # it is neither of them, and the model says so
        verdict(page, "None of these")
        page.screenshot(path=pictures / "3-none-of-these.png")
        page.get_by_role("combobox", name="Which class is it?").fill("comb")
        page.keyboard.press("Enter")
        verdict(page, "comb")
        assert "Learned 1 image as comb." in page.locator("#notice").inner_text()
        assert page.get_by_role("article", name="comb").get_by_text("1 image").is_visible()
        page.screenshot(path=pictures / "4-corrected.png")
        page.get_by_role("button", name="Undo").click()
        page.get_by_role("article", name="comb").wait_for(state="detached")

        bad = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"these are notes"}
        ask(page, [bad])
        alert = page.get_by_role("alert").filter(has_text="notes.txt")
        alert.wait_for()
        assert "image of a known kind" in alert.inner_text()
        page.screenshot(path=pictures / "4-refused.png")
        card = page.get_by_role("article", name="ring")
        choose(page, card.get_by_role("button", name="Add images").click, [*files("ring", 3), bad, *files("ring", 4)])
        card.get_by_text("5 images").wait_for()  # the readable files are learned
        alert.wait_for()

        with page.expect_download() as download:
            page.get_by_role("button", name="Download the model").click()
        with zipfile.ZipFile(download.value.path()) as archive:
            assert "letters/gallery.safetensors" in archive.namelist()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of a model with four classes of eight, one image of them in the wrong place."""
    from metarep.model.folder import ModelFolder
    from metarep.model.gallery import Gallery
    from metarep.model.model import Model
    from metarep.weights.named import load_representation

    path = tmp_path_factory.mktemp("filled") / "signs"
    folder = ModelFolder.create(path, Model(load_representation(ENCODER), None, Gallery.empty()))
    for kind in KINDS:
        folder.learn([drawing(kind, i) for i in range(8)], [kind] * 8, [f"{kind}{i}.png" for i in range(8)])
    folder.learn([drawing("comb", 20)], ["ring"], ["stray.png"])
    with server(path) as (_, address):
        yield address


@pytest.mark.parametrize(
    ("width", "language", "dark"), [*itertools.product((1280, 390), ("en-GB", "zh-CN"), (False, True))]
)
def test_it_fits_and_can_be_read(
    chromium: Any, pictures: Path, filled: str, width: int, language: str, dark: bool
) -> None:
    options = {"color_scheme": "dark" if dark else "light", "locale": language}
    chinese = language == "zh-CN"
    with window(chromium, filled, viewport={"width": width, "height": 900}, has_touch=width < 600, **options) as page:
        page.locator("#ask").wait_for()
        assert page.evaluate("document.documentElement.lang") == ("zh" if chinese else "en")
        choose(page, lambda: page.locator("#query-file").click(), files("ring", 9) + files("steps", 9))
        verdict(page, "steps")
        page.evaluate("""async () => { for (let y = 0; y < document.body.scrollHeight; y += 300) {
          scrollTo(0, y); await new Promise(done => setTimeout(done, 30)); } }""")
        page.locator("#map circle").first.wait_for()
        page.evaluate("scrollTo(0, 0)")
        until(page, SEEN)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(WIDE) == []
        assert page.evaluate(FAINT) == []
        assert page.evaluate(UNNAMED) == []
        page.locator("#per-class summary").click()
        assert (
            page.evaluate(
                "(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)(document.querySelector('.each'))"
            )
            == 0
        )
        words = page.evaluate("document.body.innerText")
        assert ("类别" in words) == chinese
        assert "{" not in words, "a word was not filled in"
        assert "undefined" not in words
        name = f"5-{width}-{language}-{'dark' if dark else 'light'}.png"
        page.screenshot(path=pictures / name, full_page=True)


# Controls that a screen reader has no name for.
UNNAMED = """[...document.querySelectorAll('button, input, select, a, img, svg[role]')].filter(each =>
  each.checkVisibility() && !each.getAttribute('aria-label') && !each.labels?.length && !each.textContent.trim()
  && !each.hasAttribute('alt') && !each.querySelector('img[alt]:not([alt=""])')
  && !each.getAttribute('aria-labelledby')).map(each => each.outerHTML.slice(0, 90))"""


def test_the_language_is_remembered(chromium: Any, filled: str) -> None:
    with window(chromium, filled) as page:
        page.get_by_role("button", name="中文").click()
        page.get_by_role("heading", name="它有多可信").wait_for()
        page.reload()
        page.get_by_role("heading", name="它有多可信").wait_for()
        page.get_by_role("button", name="English").click()
        page.get_by_role("heading", name="How far you can trust it").wait_for()


def test_suspects_map_and_move(chromium: Any, filled: str, pictures: Path) -> None:
    with window(chromium, filled) as page:
        page.get_by_text("stray.png is in ring and looks like comb").wait_for()
        page.locator("#map").scroll_into_view_if_needed()
        page.locator("#map circle").first.wait_for()  # it is requested when it is scrolled into view
        assert page.locator("#map circle").count() == 33
        page.locator("#map circle").last.hover()
        page.locator("#map-tip", has_text="ring").wait_for()
        assert page.locator("#map circle.lit").count() == 9
        page.screenshot(path=pictures / "6-map.png")
        page.mouse.move(0, 0)
        page.get_by_role("button", name="ring", exact=True).focus()  # of the legend
        assert page.locator("#map circle.lit").count() == 9
        page.get_by_role("button", name="Move to comb").click()
        page.get_by_text("No image seems to be in the wrong class.").wait_for()
        assert page.get_by_role("article", name="comb").get_by_text("9 images").is_visible()
        page.get_by_role("button", name="Undo").click()
        page.get_by_text("stray.png is in ring and looks like comb").wait_for()
        page.locator("#map circle").last.click()  # other points may be covered
        page.get_by_role("dialog").get_by_role("heading", name="stray.png").wait_for()
        page.screenshot(path=pictures / "6-image.png")


def test_by_keyboard_alone(chromium: Any, tmp_path: Path) -> None:
    """Every step of use by Tab, Enter and Escape."""

    def reach(name: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate(FOCUSED) == name:
                return
        raise AssertionError(f"{name} is not reached by Tab")

    with (
        server(tmp_path / "letters", "--encoder", ENCODER) as (_, address),
        window(chromium, address) as page,
    ):
        page.get_by_role("heading", name="letters").wait_for()
        for kind in ("ring", "cross"):
            reach("A new class")
            page.keyboard.type(kind)
            choose(page, lambda: page.keyboard.press("Enter"), files(kind, 0, 1))
            page.get_by_role("article", name=kind).wait_for()
        reach("Choose a file")
        choose(page, lambda: page.keyboard.press("Enter"), files("cross", 9))
        verdict(page, "cross")
        reach("Yes, learn it as cross")
        page.keyboard.press("Enter")
        page.get_by_role("article", name="cross").get_by_text("3 images").wait_for()
        reach("Rename: cross")
        page.keyboard.press("Enter")
        page.keyboard.type("x")
        page.keyboard.press("Enter")
        page.get_by_role("article", name="x").wait_for()
        reach("x, 2")
        page.keyboard.press("Enter")
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="hidden")
        reach("Remove: x")
        page.keyboard.press("Enter")
        page.get_by_role("dialog").get_by_text("Its images are removed too: 3 images.").wait_for()
        page.keyboard.press("Enter")  # the first button cancels
        page.get_by_role("dialog").wait_for(state="hidden")
        assert page.get_by_role("article", name="x").is_visible()
        page.keyboard.press("Enter")  # the focus is back on the button
        page.get_by_role("dialog").wait_for()
        reach("Remove")
        page.keyboard.press("Enter")
        page.get_by_role("article", name="x").wait_for(state="detached")
        reach("Undo")
        page.keyboard.press("Enter")
        page.get_by_role("article", name="x").get_by_text("3 images").wait_for()


# What a screen reader calls the control that has the focus.
FOCUSED = """(() => { const at = document.activeElement;
  return at.getAttribute('aria-label') || at.labels?.[0]?.textContent || at.textContent; })()"""
DROP = """([place, named]) => {
  const carried = new DataTransfer();
  for (const [name, text] of named)
    carried.items.add(new File([Uint8Array.from(atob(text), each => each.charCodeAt(0))], name, {type: 'image/png'}));
  const event = new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true});
  document.querySelector(place).dispatchEvent(event);
}"""


# Whether a burst has so many pictures; compared in the page, because the driver may miss one of the numbers.
TAKEN = "parseInt(document.querySelector('#camera-count').textContent) >= {}"


def test_drop_paste_and_camera(chromium: Any, tmp_path: Path, pictures: Path) -> None:
    import base64

    def drop(place: str, kind: str, *seeds: int) -> None:
        page.evaluate(DROP, [place, [[f"{kind}{i}.png", base64.b64encode(drawing(kind, i)).decode()] for i in seeds]])

    with (
        server(tmp_path / "letters", "--encoder", ENCODER) as (_, address),
        window(chromium, address, permissions=["camera"]) as page,
    ):
        page.get_by_role("heading", name="letters").wait_for()
        drop("#new", "ring", 0)
        page.get_by_role("alert").filter(has_text="Give the class a name first.").wait_for()
        for kind in ("ring", "cross"):
            page.get_by_label("A new class").fill(kind)
            drop("#new", kind, 0, 1)
            page.get_by_role("article", name=kind).get_by_text("2 images").wait_for()
        drop("article[aria-label=ring]", "ring", 2)
        page.get_by_role("article", name="ring").get_by_text("3 images").wait_for()
        drop("#query", "cross", 5)
        verdict(page, "cross")
        page.get_by_role("article", name="cross").get_by_role("button", name="Camera").click()
        until(page, "document.querySelector('video').videoWidth > 0")
        page.get_by_role("button", name="Take a picture").click()
        page.get_by_role("dialog").get_by_text("1 taken").wait_for()
        page.screenshot(path=pictures / "7-camera.png")
        page.get_by_text("Learned 1 image as cross.").wait_for()
        take = page.get_by_role("button", name="Take a picture")
        take.hover()
        page.mouse.down()  # and hold
        until(page, TAKEN.format(4))
        page.mouse.up()
        several = page.locator("#notice-text", has_text=re.compile(r"Learned \d+ images as cross"))
        several.wait_for()
        taken = int(page.locator("#camera-count").inner_text().split()[0])
        assert taken >= 4
        page.wait_for_timeout(600)
        assert page.locator("#camera-count").inner_text() == f"{taken} taken", "releasing the button ends the burst"
        page.get_by_role("button", name="Done").click()
        page.get_by_role("article", name="cross").get_by_text(f"{taken + 2} images").wait_for()
        until(page, "document.querySelector('video').srcObject === null")  # the camera is switched off
        page.get_by_role("button", name="close").click()  # the notice, so that the next is waited for
        page.get_by_role("article", name="cross").get_by_role("button", name="Camera").press("Enter")
        until(page, "document.querySelector('video').videoWidth > 0")
        page.keyboard.down(" ")
        until(page, TAKEN.format(2))
        page.keyboard.up(" ")
        several.wait_for()
        taken += int(page.locator("#camera-count").inner_text().split()[0])
        page.keyboard.press("Escape")
        page.get_by_role("article", name="cross").get_by_text(f"{taken + 2} images").wait_for()


def test_the_camera_says_what_it_sees(chromium: Any, filled: str, pictures: Path) -> None:
    """It answers a few times a second while the camera is on, and sends a question only after the last answer."""
    with window(chromium, filled, permissions=["camera"]) as page:
        page.locator("#ask").wait_for()
        asking, most, asked = set(), [0], []

        def ask(request: Any) -> None:
            if "/predict" in request.url:
                asking.add(request)
                asked.append(request)
                most[0] = max(most[0], len(asking))

        page.on("request", ask)
        page.on("requestfinished", lambda request: asking.discard(request))
        page.locator("#query-camera").click()
        page.locator("#camera-live", has_text="%").or_(page.locator("#camera-live.none")).wait_for()
        page.screenshot(path=pictures / "7-live.png")
        started = len(asked)
        page.wait_for_timeout(3000)
        assert 2 <= len(asked) - started <= 13, "a few a second"
        assert most[0] == 1
        page.get_by_role("button", name="Take a picture").click()
        page.get_by_role("heading", name="Your most similar images").wait_for()
        page.wait_for_timeout(500)
        after = len(asked)
        page.wait_for_timeout(1000)
        assert len(asked) == after, "the camera is off"


def test_many_photographs_are_labelled_by_keyboard_alone(chromium: Any, tmp_path: Path, pictures: Path) -> None:
    """The queue: Enter, digits, N, S, U, the arrows and Escape, a file that cannot be read, and the end."""

    def says(text: str) -> None:
        page.locator("#queue-status", has_text=text).wait_for()

    def shown() -> str:
        return page.locator("#queue-name").inner_text()

    def images(kind: str, n: int) -> None:
        page.get_by_role("article", name=kind, exact=True).get_by_text(f"{n} image", exact=False).wait_for()

    bad = {"name": "notes.png", "mimeType": "image/png", "buffer": b"these are notes"}
    pool = [*files("ring", 5, 6, 7), *files("cross", 5, 6, 7), *files("comb", 5, 6), bad, *files("ring", 0)]
    kinds = re.compile("ring|cross|comb")
    with (
        server(tmp_path / "letters", "--encoder", ENCODER) as (_, address),
        window(chromium, address) as page,
    ):
        page.get_by_role("heading", name="letters").wait_for()
        assert not page.locator("#queue").is_visible(), "without a class there is nothing to guess"
        add_class(page, "ring", 0, 1)
        add_class(page, "cross", 0, 1)
        choose(page, lambda: page.get_by_role("button", name="Choose photographs").press("Enter"), pool)
        page.locator("#queue-count", has_text="0 labelled · 9 left").wait_for()
        assert page.evaluate("document.activeElement.id") == "queue-stage"
        first = shown()
        assert page.locator("#queue-guesses button").count() == 2
        page.keyboard.press("ArrowRight")
        says("?")
        assert shown() != first
        page.keyboard.press("ArrowLeft")
        assert shown() == first
        page.keyboard.press("s")
        says(f"{first} was skipped.")
        page.keyboard.press("u")
        says(f"Undone: {first}.")
        assert shown() == first

        given = {"ring": 2, "cross": 2}
        for _ in range(8):
            page.screenshot(path=pictures / "10-queue.png")
            name = shown()
            kind = kinds.match(name)[0]  # type: ignore[index]
            guesses = page.locator("#queue-guesses button span:first-of-type").all_inner_texts()
            if kind not in guesses:
                page.keyboard.press("n")
                page.keyboard.type(kind)
                page.keyboard.press("Escape")  # leaves the field and not the dialog
                assert page.locator("#queue-dialog").is_visible()
                page.keyboard.press("n")
                page.keyboard.type(kind)
                page.keyboard.press("Enter")
            elif guesses[0] == kind:
                page.keyboard.press("Enter")
            else:
                page.keyboard.press(str(guesses.index(kind) + 1))
            given[kind] = given.get(kind, 0) + 1
            says(f"{name} was learned as {kind}.")
        page.locator("#queue-end").get_by_text("You have labelled 8 photographs.").wait_for()
        assert given == {"ring": 5, "cross": 5, "comb": 2}
        end = page.locator("#queue-end").inner_text()
        assert "comb 2 · new" in end
        assert "1 left out as a near copy" in end
        assert "1 could not be read" in end
        page.screenshot(path=pictures / "10-queue-end.png")
        page.keyboard.press("u")
        says("Undone: ")
        page.locator("#queue-count", has_text="7 labelled · 2 left").wait_for()
        kind = kinds.match(shown())[0]  # type: ignore[index]
        page.keyboard.press("Escape")
        page.locator("#queue-dialog").wait_for(state="hidden")
        assert page.locator("#notice-text").inner_text() == "You have labelled 7 photographs."
        for each, n in given.items():
            images(each, n - (each == kind))


@pytest.mark.parametrize(("language", "dark"), [("en-GB", True), ("zh-CN", False)])
def test_many_photographs_are_labelled_by_touch(
    chromium: Any, filled: str, pictures: Path, language: str, dark: bool
) -> None:
    options = {"color_scheme": "dark" if dark else "light", "locale": language, "has_touch": True, "is_mobile": True}
    with window(chromium, filled, viewport={"width": 390, "height": 844}, **options) as page:
        page.locator("#queue").wait_for()
        choose(page, lambda: page.locator("#queue-files").tap(), [*files("ring", 30, 31), *files("steps", 30)])
        page.locator("#queue-task").wait_for()
        assert page.locator("#queue-guesses button").count() == 4
        assert page.locator("#queue-task kbd:visible").count() == 0, "a phone has no keys"
        for each in page.locator("#queue-task button:visible").all():
            box = each.bounding_box()
            assert box is not None
            assert box["height"] >= 42, "it can be hit with a finger"
        assert page.evaluate(WIDE) == []
        assert page.evaluate(FAINT) == []
        assert page.evaluate(UNNAMED) == []
        page.screenshot(path=pictures / f"10-queue-{language}.png")
        before = page.locator("#queue-count").inner_text()
        page.locator("#queue-skip").tap()
        until(page, f"document.querySelector('#queue-count').textContent != {before!r}")
        page.locator("#queue-guesses button").first.tap()
        until(page, "document.querySelector('#queue-count').textContent.includes('1')")
        page.locator("#queue-undo").tap()
        until(page, "document.querySelector('#queue-count').textContent.includes('2')")
        page.locator("#queue-undo").tap()
        until(page, f"document.querySelector('#queue-count').textContent == {before!r}")
        for _ in range(3):
            left = page.locator("#queue-count").inner_text()
            page.locator("#queue-skip").tap()
            until(page, f"document.querySelector('#queue-count').textContent != {left!r}")
        page.locator("#queue-end .verdict").wait_for()
        assert page.evaluate(WIDE) == []
        page.locator("#queue-end button.strong").tap()
        page.locator("#queue-dialog").wait_for(state="hidden")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of a model with 101 classes of three."""
    from metarep.model.folder import ModelFolder
    from metarep.model.gallery import Gallery
    from metarep.model.model import Model
    from metarep.weights.named import load_representation

    path = tmp_path_factory.mktemp("crowded") / "signs"
    folder = ModelFolder.create(path, Model(load_representation(ENCODER), None, Gallery.empty()))
    names = [name for i in range(101) for name in [f"{KINDS[i % 4]} {i}"] * 3]
    images = [drawing(KINDS[i // 3 % 4], i) for i in range(303)]
    folder.learn(images, names, [f"{i}.png" for i in range(303)])
    with server(path) as (_, address):
        yield address


def test_a_hundred_classes_collapse_and_can_be_searched(chromium: Any, crowded: str, pictures: Path) -> None:
    with window(chromium, crowded) as page:
        cards = page.locator("#cards article")
        cards.first.wait_for()
        assert 10 < cards.count() < 40
        page.get_by_role("button", name="All 101 classes").click()
        assert cards.count() == 101
        page.get_by_role("searchbox", name="Find a class").fill("COMB 9")
        page.get_by_text("3 of 101 classes").wait_for()
        assert [each.get_attribute("aria-label") for each in cards.all()] == ["comb 91", "comb 95", "comb 99"]
        page.get_by_role("button", name="Expand: comb 95").click()
        assert page.get_by_role("article", name="comb 95").get_by_role("button", name="Rename").is_visible()
        page.screenshot(path=pictures / "9-found.png")
        page.get_by_role("button", name="Collapse: comb 95").click()
        page.get_by_role("button", name="Expand: comb 95").wait_for()
        page.get_by_role("searchbox", name="Find a class").fill("moth")
        page.get_by_text("No class has this name.").wait_for()
        page.get_by_role("heading", name="Classes").get_by_role("button").click()
        assert not page.locator("#cards").is_visible()
        page.reload()
        page.get_by_role("heading", name="Map of your images").wait_for()
        assert not page.locator("#cards").is_visible(), "the browser remembers collapsed sections"
        page.locator("#map").scroll_into_view_if_needed()
        page.locator("#map circle").first.wait_for()
        assert page.locator("#map circle").count() == 303
        page.screenshot(path=pictures / "9-crowded.png", full_page=True)


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_facts_of_classes_and_copies_are_shown(chromium: Any, filled: str, pictures: Path, language: str) -> None:
    """The page shows accuracy per class, classes that need images and near copies, if the server sends them."""

    def with_facts(route: Any) -> None:
        facts = route.fetch().json()
        each = [
            {"label": "ring", "accuracy": 88.9, "interval": [56.5, 98.0], "tested": 9, "needs": True},
            {"label": "cross", "accuracy": 100.0, "interval": [67.6, 100.0], "tested": 8, "needs": False},
            {"label": "steps", "accuracy": None, "interval": None, "tested": 0, "needs": True},
        ]
        copies = [[{"id": 0, "item": "ring0.png"}, {"id": 1, "item": "ring1.png"}]] * 8
        route.fulfill(json={**facts, "trust": {**facts["trust"], "per_class": each}, "copies": copies})

    def with_similar_names(route: Any) -> None:
        known = route.fetch().json()["classes"]
        route.fulfill(
            json={"classes": [{**each, "alike": ["Comb"] if each["name"] == "comb" else []} for each in known]}
        )

    with window(chromium, filled, locale=language) as page:
        page.locator("#trust").wait_for()
        assert page.locator("#copies *").count() == 0
        page.route("**/summary", with_facts)
        page.route("**/classes", with_similar_names)
        page.reload()
        page.locator("#per-class summary").click()
        english = language == "en-GB"
        texts = ("89 % of 9 images", "not tested") if english else ("9 张图片中的 89 %", "没有测试")
        for text in texts:
            page.locator("#per-class").get_by_text(text).wait_for()
        more = "and 2 more groups" if english else "还有 2 组"
        page.locator("#copies").get_by_text(more).wait_for()
        assert page.locator("#copies .group").count() == 6
        needs = "needs more images" if english else "需要更多图片"
        assert page.get_by_role("article", name="ring").get_by_text(needs).is_visible()
        alike = "almost the same name: Comb" if english else "名字几乎相同：Comb"
        assert page.get_by_role("article", name="comb").get_by_text(alike).is_visible()
        assert page.evaluate(FAINT) == page.evaluate(WIDE) == page.evaluate(UNNAMED) == []
        page.screenshot(path=pictures / f"10-trust-{language}.png", full_page=True)
        page.locator("#per-class .chips button", has_text="ring").click()
        assert page.evaluate("document.activeElement.closest('article').ariaLabel") == "ring"


def test_repeats_are_named_and_the_model_is_exported(chromium: Any, filled: str, pictures: Path) -> None:
    repeats = [
        {"item": "a.png", "same_as": "ring0.png", "label": "ring"},
        {"item": "b.png", "same_as": "comb0.png", "label": "comb"},
    ]
    with window(chromium, filled) as page:
        page.route("**/classes", lambda route: route.fallback() if route.request.method == "GET" else route.fulfill(
            status=201, json={"label": "ring", "ids": [1], "repeats": repeats}))  # fmt: skip
        card = page.get_by_role("article", name="ring")
        choose(page, card.get_by_role("button", name="Add images").click, files("ring", 0))
        left = "1 was left out, because the class has it already: a.png is the same as ring0.png."
        other = "b.png is the same as comb0.png in comb."
        page.locator("#notice-text", has_text=left).wait_for()
        page.locator(
            "#notice-text", has_text=f"Learned 1 image as ring. {left} 1 is also in another class: {other}"
        ).wait_for()
        page.screenshot(path=pictures / "11-repeats.png")
        why = "ONNX export needs onnx: pip install 'metarep[onnx]'"
        page.route("**/model.onnx", lambda route: route.fulfill(status=501, json={"detail": why}))
        page.get_by_role("button", name="Export (ONNX)").click()
        page.get_by_role("alert").filter(has_text=f"Not installed on this server. {why}").wait_for()
        page.unroute("**/model.onnx")
        pytest.importorskip("onnxscript")
        with page.expect_download(timeout=180_000) as download:
            page.get_by_role("button", name="Export (ONNX)").click()
        assert download.value.suggested_filename == "signs.onnx"
        assert Path(download.value.path()).stat().st_size > 100_000
        page.get_by_text("Exported: signs.onnx.").wait_for()


def test_the_token_is_asked_for(chromium: Any, tmp_path: Path, pictures: Path) -> None:
    with (
        server(tmp_path / "letters", "--encoder", ENCODER, environment={"METAREP_TOKEN": TOKEN}) as (_, address),
        window(chromium, address) as page,
    ):
        page.get_by_role("heading", name="This server needs a token").wait_for()
        page.screenshot(path=pictures / "8-token.png")
        page.get_by_label("Token (ask").fill("another")
        page.keyboard.press("Enter")
        page.get_by_role("alert").filter(has_text="This token is wrong.").wait_for()
        page.get_by_label("Token (ask").fill(TOKEN)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="letters").wait_for()
        add_class(page, "ring", 0)
        until(page, SEEN)
        page.reload()
        page.get_by_role("article", name="ring").wait_for()  # it is not asked for again


def test_a_server_that_is_gone(chromium: Any, tmp_path: Path) -> None:
    with server(tmp_path / "letters", "--encoder", ENCODER) as (process, address):
        context = chromium.new_context(locale="en-GB")
        page = context.new_page()
        page.on("filechooser", lambda _: None)
        page.goto(address)
        add_class(page, "ring", 0)
        process.kill()
        process.wait()
        page.get_by_label("A new class").fill("cross")
        choose(page, lambda: page.keyboard.press("Enter"), files("cross", 0))
        page.get_by_role("alert").filter(has_text="The server does not answer").wait_for()
        context.close()


def test_pictures_are_pictures(pictures: Path) -> None:
    import numpy as np
    from PIL import Image

    kept = sorted(pictures.glob("*.png"))
    assert len(kept) >= 8
    for path in kept:
        pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("L")).astype(int)
        assert (np.abs(pixels - np.median(pixels)) > 40).mean() > 0.005, f"hardly anything is drawn in {path.name}"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of twelve labels: what is drawn in each half of a picture, and other things that are true of it."""
    from metarep.model.multi_label.folder import MultiLabelFolder
    from metarep.model.multi_label.model import MultiLabelModel
    from metarep.weights.named import load_representation

    more = [
        "two of a kind",
        "a label with a long name, as people write them when they describe what they see",
        "<b>bold</b>",
    ]
    more += [f"tag {number}" for number in range(5)]
    pictures, labels = [], []
    for seed, (one, other) in enumerate(itertools.product(KINDS, KINDS * 2)):
        pictures.append(pair((one, other), seed))
        own = [more[place] for place in range(1, len(more)) if (seed + place) % (place + 2) == 0]
        labels.append([one, other, *own, *(["two of a kind"] if one == other else [])])
    path = tmp_path_factory.mktemp("labels") / "scenes"
    MultiLabelFolder.create(path, MultiLabelModel.fit(load_representation(ENCODER), pictures, labels))
    return path


def picture(kinds: tuple[str, ...], seed: int) -> dict[str, Any]:
    content = io.BytesIO()
    pair(kinds, seed).save(content, "PNG")
    return {"name": f"{'-'.join(kinds) or 'none'}{seed}.png", "mimeType": "image/png", "buffer": content.getvalue()}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("labels", {}),
        ("labels-dark", {"color_scheme": "dark"}),
        ("labels-phone", {"viewport": {"width": 390, "height": 844}}),
        ("labels-chinese", {"locale": "zh-CN"}),
    ],
)
def test_a_model_of_several_labels_answers_with_chips(
    chromium: Any, pictures: Path, scenes: Path, name: str, options: dict[str, Any]
) -> None:
    from metarep.model.multi_label.folder import MultiLabelFolder

    with server(scenes) as (_, address), window(chromium, address, **options) as page:
        page.get_by_role("heading", name="scenes").wait_for()
        page.locator("#each li").nth(11).wait_for()
        for seed, kinds in ((99, ("ring", "cross")), (98, ("comb", "comb"))):
            choose(page, lambda: page.locator("#query-file").click(), [picture(kinds, seed)])
            page.locator(f"#query-image[alt='{'-'.join(kinds)}{seed}.png']").wait_for()
            page.locator(".chips.said li, .verdict").first.wait_for()
        page.locator(".questions button").nth(1).click()
        chips = page.locator(".chips.said li").all_text_contents()
        model = MultiLabelFolder.open(scenes).model
        (want,) = model.answer(model.prepare([pair(("ring", "cross"), 99)]))
        assert [each.rsplit(" ", 2)[0] for each in chips] == list(want.labels)
        assert "ring" in want.labels
        assert page.locator(".bars.labels li").count() == 12
        assert page.locator(".bars.labels li.said").count() == len(chips)
        assert page.locator("b").count() == 0, "names of labels are text"
        assert page.evaluate(WIDE) == []
        assert page.evaluate(FAINT) == []
        page.screenshot(path=str(pictures / f"{name}.png"), full_page=True)


def test_downloads_and_a_bad_file_on_the_page_of_labels(
    chromium: Any, pictures: Path, scenes: Path, tmp_path: Path
) -> None:
    with server(scenes) as (_, address), window(chromium, address) as page:
        page.locator("#each li").first.wait_for()
        choose(
            page,
            lambda: page.locator("#query-file").click(),
            [{"name": "a.png", "mimeType": "image/png", "buffer": b"x"}],
        )
        page.locator("#notice-alert", has_text="a.png").wait_for()
        with page.expect_download() as download:
            page.locator("#download").click()
        with zipfile.ZipFile(download.value.path()) as archive:
            assert "scenes/labels.safetensors" in archive.namelist()
        page.locator("#query-camera").click()
        page.locator("#camera-live:not(:empty)").wait_for()
        page.screenshot(path=str(pictures / "labels-camera.png"))
