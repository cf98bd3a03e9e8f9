"""A real browser, for the proofs of pages: headless Chromium over its debugging pipe, with nothing but the library.

``BROWSER`` is the first Chromium or Chrome of the machine, or None.
"""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 120.0  # seconds for an answer
# Elements that reach beyond the window.
WIDE = """[...document.querySelectorAll('body *')].filter(each => {
  const box = each.getBoundingClientRect();
  return box.right > innerWidth + 1 && !each.closest('.scroll, svg');
}).map(each => each.tagName + '.' + each.className)"""
# What the eye needs between text and ground (WCAG 2.2, 1.4.3), of every element that has text of its own.
FAINT = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = each => {
    for (; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')].filter(each =>
    [...each.childNodes].some(node => node.nodeType == 3 && node.textContent.trim()) && !each.closest('.mark, title')
  ).map(each => {
    const style = getComputedStyle(each);
    const a = light(parse(each.closest('svg') ? style.fill : style.color)), b = light(ground(each));
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    return [contrast, each.tagName + ': ' + each.textContent.trim().slice(0, 40)];
  }).filter(([contrast]) => contrast < 4.5);
})()"""


class Page:
    """One open page. What it complains of while it is used is collected in ``complaints``."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._buffer, self._number = read, write, b"", 0
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def open(self, address: str, *, width: int, height: int = 900, dark: bool = False, touch: bool = False) -> None:
        """Load an address in a window of this size and wait until it has settled."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=address)
        ready = "new Promise(done => document.readyState == 'complete' ? done(1) : addEventListener('load', done))"
        self.run(f"{ready}.then(() => document.fonts.ready).then(() => 1)")

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is waited for."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """A PNG of the whole page, also what lies below the window."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        """The next message that is an answer; events on the way to it are looked through for complaints."""
        while True:
            while b"\0" not in self._buffer:
                assert select([self._read], [], [], PATIENCE)[0], f"the browser was silent for {PATIENCE:.0f} s"
                chunk = os.read(self._read, 1 << 16)
                assert chunk, "the browser has gone"
                self._buffer += chunk
            text, _, self._buffer = self._buffer.partition(b"\0")
            message = json.loads(text)
            if "id" in message:
                return message
            self._listen(message["method"], message["params"])

    def _listen(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {params['exceptionDetails']}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(f"console: {params['args']}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"log: {params['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            address = params["request"]["url"]
            if not address.startswith(("data:", "file:", "about:", "http://127.0.0.1", "http://localhost")):
                self.complaints.append(f"fetches {address}")
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.complaints.append(f"not loaded: {params['errorText']}")


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with a profile of its own, and its page."""
    assert BROWSER is not None
    to_child, from_us = os.pipe()
    to_us, from_child = os.pipe()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    flags += ["--disable-dev-shm-usage", "--disable-background-networking", "--remote-debugging-pipe"]
    # The browser reads commands at descriptor 3 and answers at 4; a shell puts them there.
    script = f'exec "$@" 3<&{to_child} 4>&{from_child}'
    command = ["/bin/bash", "-c", script, "bash", BROWSER, *flags, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        command, pass_fds=(to_child, from_child), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_child)
    os.close(from_child)
    try:
        yield Page(to_us, from_us)
    finally:
        os.close(from_us)  # which also tells it to go
        os.close(to_us)
        for _ in range(100):
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            process.kill()
            process.wait()
