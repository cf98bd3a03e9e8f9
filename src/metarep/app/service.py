"""Service: a model folder, and what is done with it between a request and its answer."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Annotated, TypeVar

import numpy as np
import torch
from fastapi import Depends, Request, UploadFile
from jaxtyping import UInt8
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from metarep.app.batcher import Batcher
from metarep.app.exporter import Exporter
from metarep.app.history import History
from metarep.app.limits import Limits, TooMuchError, shown_name
from metarep.app.metrics import Metrics
from metarep.data.reading.decode import decode
from metarep.data.reading.photographs import STRETCH
from metarep.errors import MetarepError, counted
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.repeats import Repeat, repeats_in

T = TypeVar("T")


class Service:
    """What the routes use. Images are decoded on all cores, encoded and compared by one thread, written by any.

    Args:
        folder: the model.
        limits: see :class:`metarep.app.limits.Limits`.
    """

    def __init__(self, folder: ModelFolder, limits: Limits) -> None:
        self.folder, self.limits, self.metrics = folder, limits, Metrics()
        self.batcher = Batcher(folder, seen=lambda images: self.metrics.observe("metarep_batch_images", images))
        self.history, self.exporter = History(folder, limits), Exporter(folder)
        self._readers = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="reader")

    def start(self) -> None:
        self.batcher.start()

    def stop(self) -> None:
        self.batcher.stop()
        self._readers.shutdown(cancel_futures=True)
        with suppress(MetarepError, OSError):  # whoever opens the folder next works it out otherwise
            self.folder.settle()

    async def read(self, uploads: Sequence[UploadFile]) -> tuple[UInt8[Tensor, "n c h w"], list[str]]:
        """Pixels at the encoder's size, and what to call the images.

        Raises:
            DataError: one that is no image; it is named.
            TooLargeError: one with more pixels than the limits allow.
            TooMuchError: more images than the limits allow, or too little memory for one.
        """
        if len(uploads) > self.limits.files:
            raise TooMuchError(f"{counted(len(uploads), 'image')}; a request may bring at most {self.limits.files}")
        names = [shown_name(upload.filename, place) for place, upload in enumerate(uploads)]
        loop = asyncio.get_running_loop()
        jobs = [
            loop.run_in_executor(self._readers, self._decode, up.file, name)
            for up, name in zip(uploads, names, strict=True)
        ]
        found = await asyncio.gather(*jobs, return_exceptions=True)  # the files are closed when the request is done
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return torch.from_numpy(np.stack([each for each in found if isinstance(each, np.ndarray)])), names

    async def ask(
        self, then: Callable[[Model, Tensor], T], pixels: Tensor | None = None, names: Sequence[str] = ()
    ) -> T:
        """``then(model, rows)`` on the thread that does all the arithmetic; ``names`` are of the images."""
        return await asyncio.wrap_future(self.batcher.submit(pixels, then, names))

    async def learn(self, uploads: Sequence[UploadFile], label: str) -> tuple[str, list[int], list[Repeat]]:
        """Add images to a class, which may be new: all of them, or none and an error.

        Returns:
            Its name, the ids of the new images, and those that are there already: what the same class has is left out.

        Raises:
            BadNameError: no class can be called so.
        """
        name = (await self.ask(lambda model, _: model)).gallery.called(label)
        pixels, items = await self.read(uploads)
        labels = [name] * len(items)

        def look(model: Model, rows: Tensor) -> tuple[Tensor, list[Repeat]]:
            return rows, repeats_in(model, self.folder.image, list(pixels), rows, labels, items)

        rows, repeats = await self.ask(look, pixels)
        left_out = {each.row for each in repeats if each.same_class}
        kept = [row for row in range(len(items)) if row not in left_out]
        if not kept:
            return name, [], repeats
        some = [pixels[row] for row in kept], rows[kept], labels[: len(kept)], [items[row] for row in kept]
        ids = await run_in_threadpool(self.folder.keep, *some, allow=self.limits.allow)
        self.metrics.count("metarep_learned_total", len(ids))
        return name, ids, repeats

    async def change(self, edit: Callable[[Gallery], Gallery]) -> int:
        """Write what ``edit`` makes of the gallery; the number with which it can be taken back."""
        return await run_in_threadpool(self.history.change, edit)

    async def take_back(self, number: int) -> None:
        """Undo a change."""
        await run_in_threadpool(self.history.take_back, number)

    def _decode(self, file: IO[bytes], name: str) -> np.ndarray:
        preprocess = self.folder.representation.encoder.preprocess
        try:
            return decode(
                file.read(),
                size=preprocess.size,
                channels=preprocess.channels,
                name=name,
                stretch=STRETCH,
                depth=self.folder.model.depth,
                most_pixels=self.limits.pixels,
                hush=False,
            )
        except MemoryError:
            raise TooMuchError(f"{name} needs more memory than there is") from None


def _service(request: Request) -> Service:
    return request.app.state.service


Served = Annotated[Service, Depends(_service)]
