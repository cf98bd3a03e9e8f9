"""Windows of a real browser, driven by playwright, for the proofs of the pages that classify."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
CAMERA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")


@contextmanager
def window(
    chromium: Any, address: str, fine: Callable[[str], bool], *, own: tuple[str, ...] = (), **options: Any
) -> Iterator[Any]:
    """Open a page in a new context, and check at the end that it logged no error and loaded nothing from elsewhere.

    Args:
        chromium: the browser.
        address: the page; what it loads must begin with it, or be a blob.
        fine: says of a complaint of the browser whether it is expected.
        own: other beginnings of what it may load.
        options: of the context, such as ``locale``.
    """
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options})
    page = context.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    here = (address, "blob:", *own)
    page.on("request", lambda asked: None if asked.url.startswith(here) else complaints.append(asked.url))
    page.on("filechooser", lambda _: None)  # or choosers are intercepted a moment too late for a key
    page.goto(address)
    yield page
    context.close()
    assert [each for each in complaints if not fine(each)] == []
