"""History: the last changes of a model, each of which can be taken back."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from metarep.app.limits import Limits
from metarep.errors import NotHereError
from metarep.machine.files import replacing
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery

MOST = 20  # changes
MOST_BYTES = 64 << 20  # of pictures that are gone; the last change is kept whatever it takes


@dataclass(frozen=True)
class Change:
    """What a change has changed, as it was before.

    Args:
        part: its images, those that are gone and those that are in another class.
        names: of all classes then, in their order.
        pictures: files of the images that are gone.
    """

    part: Gallery
    names: tuple[str, ...]
    pictures: dict[int, bytes]

    @property
    def bytes(self) -> int:
        return sum(map(len, self.pictures.values()))


class History:
    """Changes the gallery of a folder, and remembers how it was. What others do in between stays as they did it.

    It is in memory: a server that starts anew takes nothing back that was done before.

    Args:
        folder: the model.
        limits: which a change that is taken back must keep too.
    """

    def __init__(self, folder: ModelFolder, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self._changes: OrderedDict[int, Change] = OrderedDict()
        self._next = secrets.randbelow(1 << 40)  # a page that was open before must not meet another's change here
        self._lock = threading.Lock()

    def change(self, edit: Callable[[Gallery], Gallery]) -> int:
        """Put what ``edit`` makes of the gallery in its place, and return the number of the change."""
        done: list[Change] = []

        def edit_and_remember(before: Gallery) -> Gallery:
            after = edit(before)
            done[:] = [self._between(before, after)]
            return after

        self.folder.change(edit_and_remember, allow=self.limits.allow)
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._changes[number] = done[0]
            kept = sum(change.bytes for change in self._changes.values())
            while len(self._changes) > 1 and (len(self._changes) > MOST or kept > MOST_BYTES):
                kept -= self._changes.popitem(last=False)[1].bytes
        return number

    def take_back(self, number: int) -> None:
        """Put the images of a change where they were before it; once.

        Raises:
            NotHereError: it is not remembered.
            TooMuchError: by now the class, or the model, would hold more than the limits allow.
        """
        with self._lock:
            change = self._changes.get(number)
        if change is None:
            raise NotHereError(f"change {number} can no longer be taken back; the last {MOST} of this server can")

        def restore(now: Gallery) -> Gallery:
            gallery = now.restored(change.part, change.names)
            self.limits.allow(now, gallery)
            for image, content in change.pictures.items():  # before the gallery that names them
                path = self.folder.image(image)
                path.parent.mkdir(exist_ok=True)
                with replacing(path) as partial:
                    partial.write_bytes(content)
            return gallery

        self.folder.change(restore)
        with self._lock:
            self._changes.pop(number, None)

    def _between(self, before: Gallery, after: Gallery) -> Change:
        """Called while the folder is held, so that the pictures are still there."""
        now = dict(zip(after.ids.tolist(), (after.names[i] for i in after.classes.tolist()), strict=True))
        own = dict(zip(before.ids.tolist(), (before.names[i] for i in before.classes.tolist()), strict=True))
        pictures = {}
        for number in own.keys() - now.keys():
            if (path := self.folder.image(number)).is_file():
                pictures[number] = path.read_bytes()
        part = before.only(number for number, label in own.items() if now.get(number) != label)
        return Change(part, before.names, pictures)
