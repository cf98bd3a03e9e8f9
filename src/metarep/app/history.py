"""History: the last changes of a model, each of which can be undone."""

import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from metarep.app import changes
from metarep.app.changes import Change, ChangeFiles, Changes, ChangesInMemory
from metarep.app.limits import Limits
from metarep.errors import NotHereError
from metarep.machine.files import replacing
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery


class History:
    """Changes the gallery of a model folder, and remembers how to undo each change.

    To undo a change moves its images back, and leaves later changes by other people as they are. After a restart of the
    server, earlier changes cannot be undone.

    Args:
        folder: the model folder.
        limits: the limits that the model must also keep after an undo.
        shared: the folder in which the workers of one server keep their changes, so that each can undo those of all;
            None keeps them in memory.
    """

    def __init__(self, folder: ModelFolder, limits: Limits, shared: Path | None = None) -> None:
        self.folder, self.limits = folder, limits
        self._changes: Changes = ChangeFiles(shared) if shared else ChangesInMemory()
        # Numbers start at random: a page that was open before a restart must not undo another change by an old number.
        # Two workers do not give the same number either.
        self._next = secrets.randbelow(1 << 40)
        self._lock = threading.Lock()

    def change(self, edit: Callable[[Gallery], Gallery]) -> int:
        """Replace the gallery by ``edit(gallery)``, and return the number of this change.

        Raises:
            TooMuchError, BadNameError: see :meth:`metarep.app.limits.Limits.allow`.
        """
        done: list[Change] = []

        def edit_and_remember(before: Gallery) -> Gallery:
            after = edit(before)
            done[:] = [self._between(before, after)]
            return after

        self.folder.change(edit_and_remember, allow=self.limits.allow)
        with self._lock:
            number, self._next = self._next, self._next + 1
        self._changes.put(number, done[0])
        return number

    def undo(self, number: int) -> None:
        """Put the images of a change back to where they were before it. A change can be undone once.

        Raises:
            NotHereError: the change is not remembered any more.
            TooMuchError: a class or the model would now have more than the limits allow.
        """
        change = self._changes.get(number)
        if change is None:
            raise NotHereError(
                f"change {number} can no longer be undone; "
                f"the last {changes.MOST_CHANGES} of this server can be, once each"
            )

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
        self._changes.drop(number)

    def _between(self, before: Gallery, after: Gallery) -> Change:
        """Return what changed. It is called while the folder is locked, when the removed pictures still exist."""
        labels_after = _labels(after)
        labels_before = _labels(before)
        pictures = {}
        for number in labels_before.keys() - labels_after.keys():
            if (path := self.folder.image(number)).is_file():
                pictures[number] = path.read_bytes()
        part = before.only(number for number, label in labels_before.items() if labels_after.get(number) != label)
        return Change(part, before.names, pictures)


def _labels(gallery: Gallery) -> dict[int, str]:
    """Return the class of each image by the image's number."""
    return dict(zip(gallery.ids.tolist(), (gallery.names[i] for i in gallery.classes.tolist()), strict=True))
