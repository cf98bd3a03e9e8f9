"""A server that is killed while it writes, again and again: the model opens, and what was acknowledged is there."""

import http.client
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import ENCODER, KINDS, drawing, server

pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'metarep[serve]'")
pytestmark = pytest.mark.proof

ROUNDS = 6
WRITERS = 4


class Writer(threading.Thread):
    """Teaches, moves and forgets until the server is gone; keeps what was acknowledged and what was on its way."""

    def __init__(self, address: str, number: int, held: dict[int, str], first_seed: int) -> None:
        super().__init__()
        self.link = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        self.number, self.held, self.seed = number, dict(held), first_seed
        self.unsure: set[int] = set()  # images whose last change was not answered
        self.gone: set[int] = set()
        self.acknowledged = 0

    def run(self) -> None:
        turn = 0
        try:
            while True:
                self.write(turn)
                turn += 1
        except (ConnectionError, http.client.HTTPException, OSError):
            self.link.close()

    def write(self, turn: int) -> None:
        label = f"{KINDS[turn % len(KINDS)]} {self.number}"
        changed = next(iter(self.held), None) if turn % 4 == 3 else None
        if changed is None:
            head = f'--edge\r\nContent-Disposition: form-data; name="name"\r\n\r\n{label}\r\n--edge\r\n'
            head += 'Content-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
            body = head.encode() + drawing(KINDS[turn % len(KINDS)], self.seed + turn) + b"\r\n--edge--\r\n"
            (number,) = json.loads(self.ask("POST", "/classes", body, "multipart/form-data; boundary=edge"))["ids"]
            self.held[number] = label
        elif turn % 8 == 3:
            self.unsure.add(changed)
            self.ask("PATCH", f"/images/{changed}", json.dumps({"to": label}).encode(), "application/json")
            self.unsure.discard(changed)
            del self.held[changed]
            self.held[changed] = label
        else:
            self.unsure.add(changed)
            self.ask("DELETE", f"/images/{changed}")
            self.unsure.discard(changed)
            self.gone.add(changed)
            del self.held[changed]
        self.acknowledged += 1

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "text/plain") -> bytes:
        self.link.request(method, path, body, {"content-type": kind})
        answer = self.link.getresponse()
        content = answer.read()
        assert answer.status < 300, content
        return content


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    from metarep.model.folder import ModelFolder

    generator = np.random.default_rng(0)
    path = tmp_path / "letters"
    held: list[dict[int, str]] = [{} for _ in range(WRITERS)]
    written = 0
    for turn in range(ROUNDS):
        with server(path, *(["--encoder", ENCODER] if turn == 0 else [])) as (process, address):
            # Every round draws new images: one that its class has already would be left out.
            writers = [Writer(address, number, own, 10_000 * turn) for number, own in enumerate(held)]
            for writer in writers:
                writer.start()
            time.sleep(1 + 2 * generator.random())
            process.kill()
            for writer in writers:
                writer.join(60)
                assert not writer.is_alive()
        gallery = ModelFolder.open(path).model.gallery
        there = dict(zip(gallery.ids.tolist(), (gallery.names[i] for i in gallery.classes.tolist()), strict=True))
        for writer in writers:
            for number, label in writer.held.items():
                if number not in writer.unsure:
                    assert there.get(number) == label, f"round {turn}: image {number} was acknowledged as {label}"
            assert not writer.gone & there.keys(), f"round {turn}: what was forgotten is back"
        known = {number for writer in writers for number in writer.held}
        extra = there.keys() - known
        assert len(extra) <= WRITERS, "only what was on its way may be there as well"
        for number in there:
            with Image.open(ModelFolder.open(path).image(number)) as picture:
                picture.load()
        # What was on its way is settled now, one way or the other.
        held = [{number: there[number] for number in writer.held if number in there} for writer in writers]
        for number in extra:
            held[0][number] = there[number]
        written += sum(writer.acknowledged for writer in writers)
    assert written > 20 * ROUNDS, f"only {written} writes were acknowledged in {ROUNDS} rounds"
    print(f"{written} writes acknowledged, {ROUNDS} kills, {len(there)} images held")
