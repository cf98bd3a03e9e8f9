"""TeachingService: a folder of a model of one class an image, which routes change, and whose changes can be undone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from fastapi import Depends, UploadFile
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from metarep.app.history import History
from metarep.app.limits import Limits
from metarep.app.service import Service, service_of
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.repeats import Repeat, repeats_in


class TeachingService(Service):
    """A service whose model learns, and the history of its changes. The folder is written by any thread.

    Args:
        folder: the model folder.
        limits, shared: as for :class:`metarep.app.service.Service`.
    """

    def __init__(self, folder: ModelFolder, limits: Limits, shared: Path | None = None) -> None:
        super().__init__(folder, limits, shared)
        self.taught, self.history = folder, History(folder, limits, shared)

    async def learn(self, uploads: Sequence[UploadFile], label: str) -> tuple[str, list[int], list[Repeat]]:
        """Add images to a class, which may be new. Either all of them are added, or none and an error is raised.

        An image that the same class has already is left out.

        Returns:
            The name of the class, the numbers of the new images, and the images that the model has already.

        Raises:
            BadNameError: a class cannot have this name.
            DataError, TooMuchError: see :meth:`read` and :meth:`metarep.app.limits.Limits.allow`.
        """
        name = (await self.model()).gallery.called(label)
        pixels, items = await self.read(uploads)
        labels = [name] * len(items)

        def find_repeats(model: Model, rows: Tensor) -> tuple[Tensor, list[Repeat]]:
            return rows, repeats_in(model, self.taught.image, list(pixels), rows, labels, items)

        rows, repeats = await self.run(find_repeats, pixels)
        left_out = {each.row for each in repeats if each.same_class}
        kept = [row for row in range(len(items)) if row not in left_out]
        if not kept:
            return name, [], repeats
        new_pixels, new_items = [pixels[row] for row in kept], [items[row] for row in kept]
        ids = await run_in_threadpool(
            self.taught.keep, new_pixels, rows[kept], labels[: len(kept)], new_items, allow=self.limits.allow
        )
        self.metrics.count("metarep_learned_total", len(ids))
        return name, ids, repeats

    async def change(self, edit: Callable[[Gallery], Gallery]) -> int:
        """Replace the gallery by ``edit(gallery)``, and return the number with which the change can be undone."""
        return await run_in_threadpool(self.history.change, edit)

    async def undo(self, number: int) -> None:
        """Undo a change; see :meth:`metarep.app.history.History.undo`."""
        await run_in_threadpool(self.history.undo, number)


Taught = Annotated[TeachingService, Depends(service_of)]
