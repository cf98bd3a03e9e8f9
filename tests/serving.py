"""What the server's tests share: drawings that a shipped encoder tells apart, a test client, and a real server."""

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
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("ring", "cross", "steps", "comb")
ENCODER = "omniglot-protonet"  # ships with the package, and takes about a millisecond per image
HOST = "http://localhost:8000"
PATIENCE = 60.0  # seconds for a server to start, and to stop


def drawing(kind: str, seed: int, size: int = 96, file: str = "PNG") -> bytes:
    """Return a drawing of this kind by a shaky hand, as the bytes of an image file."""
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


def served(folder: Any, **options: Any) -> Any:
    """Return a test client of a model folder's server; ``options`` are limits and arguments of ``create_app``."""
    from fastapi.testclient import TestClient

    from metarep.app.api import create_app
    from metarep.app.guard import LOOPBACK
    from metarep.app.limits import Limits

    limits = {name: options.pop(name) for name in list(options) if hasattr(Limits, name)}
    app = create_app(folder, limits=Limits(**limits), **{"hosts": LOOPBACK, **options})
    return TestClient(app, base_url=HOST, raise_server_exceptions=False)


def drawings(field: str, kind: str, *seeds: int) -> list[tuple[str, tuple[str, bytes]]]:
    """Return drawings of a kind as files of a form field."""
    return [(field, (f"{kind}{seed}.png", drawing(kind, seed))) for seed in seeds]


def teach(client: Any, kind: str, *seeds: int, name: str | None = None) -> list[int]:
    """Add drawings of a kind to a class, and return their numbers."""
    response = client.post("/classes", data={"name": name or kind}, files=drawings("files", kind, *seeds))
    assert response.status_code == 201, response.text
    return response.json()["ids"]


def counts(client: Any) -> dict[str, int]:
    """Return the number of images of each class."""
    return {each["name"]: each["images"] for each in client.get("/classes").json()["classes"]}


def refused(response: Any, status: int, *words: str) -> str:
    """Check that a response refuses with this status, in one line of JSON that has these words; return the line."""
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    assert isinstance(detail, str)
    assert "\n" not in detail
    for word in words:
        assert word in detail
    return detail


@contextmanager
def server(
    model: Path, *flags: str, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a real ``metarep serve`` on a free port of this machine; yield the process and its address, then stop it."""
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
    """Return the address of the page, which a starting server prints."""
    assert process.stdout is not None
    output, deadline = "", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        output += line
        if match := re.match(r"page: (\S+)", line):
            return match[1]
        if not line:
            break
    process.kill()
    raise AssertionError(f"the server did not start:\n{output}")


def workers_of(server: "subprocess.Popen[str]") -> list[int]:
    """Return the process numbers of a server's workers, read from ``/proc``."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server.pid and b"spawn_main" in (path / "cmdline").read_bytes():
                pids.append(int(path.name))
        except OSError:  # it has just ended
            continue
    return sorted(pids)
