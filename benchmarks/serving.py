"""Load test of a server: clients predict, add, correct and remove at once, while another process adds images.

    python benchmarks/serving.py [--seconds 600] [--encoder efficientnet-lite0 --size 128] [--out FILE]

Every client asks anew as soon as it has its answer. At the end the model must hold what was acknowledged, no more and
no less, and no answer may have been a 5xx; else the exit status is 1.
"""

import argparse
import http.client
import io
import json
import multiprocessing
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

CLASSES, START, MOST = 20, 5, 40  # classes, images of each to start with, images that a client keeps
WISHES = {"predict": 70, "search": 8, "add": 10, "move": 4, "remove": 4, "classes": 2, "summary": 1, "map": 1}


def photo(kind: int, seed: int) -> bytes:
    """A JPEG of 320 x 240: a few colours, always the same for a kind, shaken a little."""
    colours = np.random.default_rng(kind).integers(0, 256, (4, 6, 3))
    shaken = colours + np.random.default_rng([kind, seed]).integers(-40, 41, colours.shape)
    file = io.BytesIO()
    Image.fromarray(shaken.clip(0, 255).astype(np.uint8)).resize((320, 240), Image.Resampling.BICUBIC).save(
        file, "JPEG"
    )
    return file.getvalue()


class Client(threading.Thread):
    """Sends requests until it is stopped, and records what the model must hold after its changes."""

    def __init__(self, address: str, number: int, until: float) -> None:
        super().__init__(name=f"client {number}")
        host, _, port = address.removeprefix("http://").partition(":")
        self.link = http.client.HTTPConnection(host, int(port), timeout=120)
        self.number, self.until, self.dice = number, until, random.Random(number)
        self.own: dict[int, str] = {}
        self.times: dict[str, list[float]] = defaultdict(list)
        self.wrong: list[str] = []

    def ask(self, wish: str, method: str, path: str, body: bytes = b"", kind: str = "") -> dict:
        started = time.perf_counter()
        self.link.request(method, path, body, {"content-type": kind} if kind else {})
        answer = self.link.getresponse()
        content = answer.read()
        self.times[wish].append(time.perf_counter() - started)
        if answer.status >= 300:
            self.wrong.append(f"{method} {path}: {answer.status} {content[:200].decode(errors='replace')}")
            return {}
        return json.loads(content) if content else {}

    def upload(self, wish: str, path: str, field: str, fields: dict[str, str]) -> dict:
        parts = [
            f'--edge\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        ]
        head = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="photo.jpg"\r\n\r\n'
        content = photo(self.dice.randrange(CLASSES), self.dice.randrange(10**6))
        body = "".join(parts).encode() + head.encode() + content + b"\r\n--edge--\r\n"
        return self.ask(wish, "POST", path, body, "multipart/form-data; boundary=edge")

    def run(self) -> None:
        names, weights = list(WISHES), list(WISHES.values())
        while time.monotonic() < self.until:
            wish = self.dice.choices(names, weights)[0]
            label = f"class {self.dice.randrange(CLASSES)}"
            if wish == "add" and len(self.own) >= MOST:
                wish = "remove"
            if wish in ("move", "remove") and not self.own:
                wish = "add"
            match wish:
                case "predict":
                    if not self.upload(wish, "/predict", "files", {}).get("answers"):
                        self.wrong.append("predict: no answer")
                case "search":
                    self.upload(wish, "/search", "file", {})
                case "add":
                    for number in self.upload(wish, "/classes", "files", {"name": label}).get("ids", []):
                        self.own[number] = label
                case "move":
                    number = self.dice.choice(list(self.own))
                    self.ask(wish, "PATCH", f"/images/{number}", json.dumps({"to": label}).encode(), "application/json")
                    self.own[number] = label
                case "remove":
                    number = self.dice.choice(list(self.own))
                    self.ask(wish, "DELETE", f"/images/{number}")
                    del self.own[number]
                case _:
                    self.ask(wish, "GET", f"/{wish}")


def teach_beside(path: Path, seconds: float, done: "multiprocessing.Queue[dict[int, str]]") -> None:
    """Do what ``metarep add`` does once a second, in a process of its own."""
    import torch

    from metarep.model.folder import ModelFolder

    torch.set_num_threads(1)
    folder, until, own = ModelFolder.open(path), time.monotonic() + seconds, {}
    while time.monotonic() < until and len(own) < 2 * MOST:
        label = f"class {len(own) % CLASSES}"
        (number,) = folder.learn([photo(len(own) % CLASSES, 10**7 + len(own))], [label], ["beside.jpg"])
        own[number] = label
        time.sleep(1)
    done.put(own)


def make(path: Path, encoder: str, size: int | None) -> dict[int, str]:
    from metarep.model.folder import ModelFolder
    from metarep.model.gallery import Gallery
    from metarep.model.model import Model
    from metarep.weights.named import load_representation

    folder = ModelFolder.create(path, Model(load_representation(encoder, size=size), None, Gallery.empty()))
    pairs = [(kind, seed) for kind in range(CLASSES) for seed in range(START)]
    labels = [f"class {kind}" for kind, _ in pairs]
    return dict(
        zip(folder.learn([photo(*pair) for pair in pairs], labels, ["start.jpg"] * len(pairs)), labels, strict=True)
    )


def held(address: str, path: str) -> bytes:
    host, _, port = address.removeprefix("http://").partition(":")
    link = http.client.HTTPConnection(host, int(port), timeout=120)
    link.request("GET", quote(path))
    return link.getresponse().read()


def memory(address: str) -> float:
    found = re.search(rb"(?m)^process_resident_memory_bytes (\S+)", held(address, "/metrics"))
    assert found
    return float(found[1]) / 2**20


def compare(address: str, expected: dict[int, str]) -> list[str]:
    """The differences between the expected and the real content, as text."""
    classes = json.loads(held(address, "/classes"))["classes"]
    there = {number: each["name"] for each in classes for number in each["ids"]}
    lost, more = expected.keys() - there.keys(), there.keys() - expected.keys()
    moved = [number for number in expected.keys() & there.keys() if expected[number] != there[number]]
    return [
        f"{what}: images {sorted(ids)[:5]}"
        for what, ids in (("lost", lost), ("unknown", more), ("misplaced", moved))
        if ids
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--size", type=int)
    parser.add_argument("--threads", type=int, help="of the server")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        expected = make(path, args.encoder, args.size)
        command = [sys.executable, "-m", "metarep", "serve", str(path), "--port", "0"]
        command += ["--threads", str(args.threads)] if args.threads else []
        command += ["--workers", str(args.workers)] if args.workers > 1 else []
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            return measure(args, server, path, expected)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)


def measure(args: argparse.Namespace, server: "subprocess.Popen[str]", path: Path, expected: dict[int, str]) -> int:
    from metarep.machine.device import hardware

    assert server.stdout is not None
    address = next(line.split()[1] for line in server.stdout if line.startswith("page:"))
    context = multiprocessing.get_context("spawn")
    done: multiprocessing.Queue[dict[int, str]] = context.Queue()
    beside = context.Process(target=teach_beside, args=(path, args.seconds, done))
    before, until = memory(address), time.monotonic() + args.seconds
    clients = [Client(address, number, until) for number in range(args.clients)]
    for each in (beside, *clients):
        each.start()
    most = before
    while any(client.is_alive() for client in clients):
        time.sleep(min(5.0, args.seconds / 4))
        most = max(most, memory(address))
    beside_own = done.get(timeout=120)
    beside.join()
    for own in (beside_own, *(client.own for client in clients)):
        expected |= own
    wrong = [line for client in clients for line in client.wrong] + compare(address, expected)
    rows = []
    for wish in WISHES:
        times = sorted(1e3 * each for client in clients for each in client.times[wish])
        if len(times) > 1:
            cuts = statistics.quantiles(times, n=100, method="inclusive")
            rows.append(
                {"request": wish, "answered": len(times), "p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1)}
            )
    total = sum(row["answered"] for row in rows)
    size = f" at {args.size} px" if args.size else ""
    workers = f"{args.workers} workers, " if args.workers > 1 else ""
    note = (
        f"{args.seconds:g} s, {workers}{args.clients} clients without pause, another process teaches; "
        f"{args.encoder}{size}, "
        f"{len(expected)} images in {CLASSES} classes at the end; {total / args.seconds:.0f} requests/s; "
        f"{len(wrong)} lost writes and 5xx; memory {before:.0f} MiB at the start, {most:.0f} MiB at most"
    )
    content = {"hardware": hardware(), "note": note, "rows": rows}
    print(json.dumps(content, indent=1))
    for line in wrong[:20]:
        print(f"wrong: {line}", file=sys.stderr)
    if args.out and not wrong:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
