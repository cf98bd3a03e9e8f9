"""What the tests of the server share: drawings of a few kinds that a shipped encoder tells apart, and a real server."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("ring", "cross", "steps", "comb")
ENCODER = "omniglot-protonet"  # ships with the package; a millisecond an image
PATIENCE = 60.0  # seconds for a server to come up, and to go


def drawing(kind: str, seed: int, size: int = 96, file: str = "PNG") -> bytes:
    """A drawing by a shaky hand, as the bytes of a file."""
    generator = np.random.default_rng([KINDS.index(kind), seed])
    picture = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(picture)

    def stroke(*points: tuple[float, float]) -> None:
        shaken = [tuple((np.array(point) + generator.normal(0, 0.025, 2)) * size) for point in points]
        pen.line(shaken, "black", width=max(2, size // 16), joint="curve")

    match kind:
        case "ring":
            stroke(*[(0.5 + 0.3 * np.cos(a), 0.5 + 0.3 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 13)])
        case "cross":
            stroke((0.2, 0.2), (0.8, 0.8))
            stroke((0.8, 0.2), (0.2, 0.8))
        case "steps":
            stroke((0.15, 0.2), (0.4, 0.2), (0.4, 0.5), (0.65, 0.5), (0.65, 0.8), (0.9, 0.8))
        case "comb":
            stroke((0.15, 0.75), (0.85, 0.75))
            for x in (0.2, 0.4, 0.6, 0.8):
                stroke((x, 0.75), (x, 0.2))
    content = io.BytesIO()
    picture.save(content, file)
    return content.getvalue()


@contextmanager
def server(
    model: Path, *flags: str, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real ``metarep serve`` on a free port of this machine, and its address; it is ended whatever happens."""
    command = [sys.executable, "-m", "metarep", "serve", str(model), "--port", "0", *flags]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )
    try:
        yield process, address_of(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def address_of(process: "subprocess.Popen[str]") -> str:
    """Where a server says that its page is."""
    assert process.stdout is not None
    said, until = "", time.monotonic() + PATIENCE
    while time.monotonic() < until:
        line = process.stdout.readline()
        said += line
        if found := re.match(r"page: (\S+)", line):
            return found[1]
        if not line:
            break
    process.kill()
    raise AssertionError(f"the server did not come up:\n{said}")
