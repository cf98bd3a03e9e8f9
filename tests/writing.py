"""Clients that write to a server that is killed, and what the model must then hold."""

import http.client
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from serving import KINDS, drawing


class Writer(threading.Thread):
    """Teaches, moves and forgets; keeps what was acknowledged and what was on its way.

    It ends when a connection breaks; or, if ``stop`` is given, it connects again until that is set.
    """

    def __init__(
        self, address: str, number: int, held: dict[int, str], first_seed: int, stop: threading.Event | None = None
    ) -> None:
        super().__init__()
        self.stop = stop
        self.link = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        self.number, self.held, self.seed = number, dict(held), first_seed
        self.unsure: set[int] = set()  # images whose last change was not answered
        self.gone: set[int] = set()
        self.acknowledged = self.broken = 0

    def run(self) -> None:
        turn = 0
        while self.stop is None or not self.stop.is_set():
            try:
                self.write(turn)
            except (ConnectionError, http.client.HTTPException, OSError):
                self.link.close()
                self.broken += 1
                if self.stop is None:
                    break
            turn += 1
        self.link.close()

    def write(self, turn: int) -> None:
        label = f"{KINDS[turn % len(KINDS)]} {self.number}"
        changed = next((each for each in self.held if each not in self.unsure), None) if turn % 4 == 3 else None
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


def labels_in(path: Path) -> dict[int, str]:
    """Return the class of each image of a model folder, by the image's number."""
    from metarep.model.folder import ModelFolder

    gallery = ModelFolder.open(path).model.gallery
    return dict(zip(gallery.ids.tolist(), (gallery.names[i] for i in gallery.classes.tolist()), strict=True))


def refuse_losses(there: dict[int, str], writers: Sequence[Writer], when: str) -> set[int]:
    """Check that a model holds what was acknowledged, and return the images whose addition was not answered."""
    for writer in writers:
        for number, label in writer.held.items():
            if number not in writer.unsure:
                assert there.get(number) == label, f"{when}: image {number} was acknowledged as {label}"
        assert not writer.gone & there.keys(), f"{when}: what was forgotten is back"
    extra = there.keys() - {number for writer in writers for number in writer.held}
    most = sum(writer.broken for writer in writers)
    assert len(extra) <= most, f"{when}: only what was on its way may be there as well"
    return extra
