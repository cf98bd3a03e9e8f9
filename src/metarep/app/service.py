"""Service: a model folder, and what the routes do with it."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
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
    """Everything that the routes share: the model folder, the batcher, the history of changes and the metrics.

    Images are decoded on all cores, encoded and compared on one thread, and written by any thread.

    Args:
        folder: the model folder.
        limits: see :class:`metarep.app.limits.Limits`.
        shared: the folder that the workers of one server share; None for a server that is one process.
    """

    def __init__(self, folder: ModelFolder, limits: Limits, shared: Path | None = None) -> None:
        self.folder, self.limits, self.metrics = folder, limits, Metrics(shared)
        self.batcher = Batcher(folder, on_batch=lambda images: self.metrics.observe("metarep_batch_images", images))
        self.history, self.exporter = History(folder, limits, shared), Exporter(folder, shared)
        self._readers = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="reader")

    def start(self) -> None:
        """Start the thread that encodes images."""
        self.batcher.start()

    def stop(self) -> None:
        """End all threads, and store the model's accuracy and thresholds in its folder."""
        self.batcher.stop()
        self._readers.shutdown(cancel_futures=True)
        with suppress(MetarepError, OSError):  # they are computed again when the folder is next opened
            self.folder.calibrate()

    async def read(self, uploads: Sequence[UploadFile]) -> tuple[UInt8[Tensor, "n c h w"], list[str]]:
        """Decode uploaded images.

        Returns:
            The pixels at the encoder's size, and the name of each image.

        Raises:
            DataError: a file is not an image, or is damaged; the error names it.
            TooLargeError: an image has more pixels than the limits allow.
            TooMuchError: more images than the limits allow, or not enough memory for one of them.
        """
        if len(uploads) > self.limits.files:
            raise TooMuchError(
                f"the request has {counted(len(uploads), 'image')}; this server allows at most {self.limits.files}",
                advice="send them in several requests",
            )
        names = [shown_name(upload.filename, i) for i, upload in enumerate(uploads)]
        loop = asyncio.get_running_loop()
        jobs = [
            loop.run_in_executor(self._readers, self._decode, upload.file, name)
            for upload, name in zip(uploads, names, strict=True)
        ]
        results = await asyncio.gather(*jobs, return_exceptions=True)  # all: the files are closed after the request
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return torch.from_numpy(np.stack([each for each in results if isinstance(each, np.ndarray)])), names

    async def run(
        self, function: Callable[[Model, Tensor], T], pixels: Tensor | None = None, names: Sequence[str] = ()
    ) -> T:
        """Run ``function(model, rows)`` on the thread that encodes images; see :meth:`Batcher.submit`."""
        return await asyncio.wrap_future(self.batcher.submit(pixels, function, names))

    async def model(self) -> Model:
        """Return the model as it is on disk now."""
        return await self.run(lambda model, _: model)

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
            return rows, repeats_in(model, self.folder.image, list(pixels), rows, labels, items)

        rows, repeats = await self.run(find_repeats, pixels)
        left_out = {each.row for each in repeats if each.same_class}
        kept = [row for row in range(len(items)) if row not in left_out]
        if not kept:
            return name, [], repeats
        new_pixels, new_items = [pixels[row] for row in kept], [items[row] for row in kept]
        ids = await run_in_threadpool(
            self.folder.keep, new_pixels, rows[kept], labels[: len(kept)], new_items, allow=self.limits.allow
        )
        self.metrics.count("metarep_learned_total", len(ids))
        return name, ids, repeats

    async def change(self, edit: Callable[[Gallery], Gallery]) -> int:
        """Replace the gallery by ``edit(gallery)``, and return the number with which the change can be undone."""
        return await run_in_threadpool(self.history.change, edit)

    async def undo(self, number: int) -> None:
        """Undo a change; see :meth:`metarep.app.history.History.undo`."""
        await run_in_threadpool(self.history.undo, number)

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
            )
        except MemoryError:
            raise TooMuchError(f"{name} needs more memory than the server has", advice="send a smaller image") from None


def _service(request: Request) -> Service:
    return request.app.state.service


Served = Annotated[Service, Depends(_service)]
