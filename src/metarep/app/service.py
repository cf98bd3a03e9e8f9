"""Service: a model folder, and what all routes do with it: images are read and encoded, and answered for."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar

import numpy as np
import torch
from fastapi import Depends, Request, UploadFile
from jaxtyping import UInt8
from torch import Tensor

from metarep.app.batcher import Batcher
from metarep.app.exporter import Exporter
from metarep.app.limits import Limits, TooMuchError, shown_name
from metarep.app.metrics import Metrics
from metarep.data.reading.decode import decode
from metarep.data.reading.photographs import STRETCH
from metarep.errors import MetarepError, counted
from metarep.model.store import ModelStore

T = TypeVar("T")


class Service:
    """Everything that the routes share: the model folder, the batcher and the metrics.

    Images are decoded on all cores, and encoded and compared on one thread.

    Args:
        folder: the model folder.
        limits: see :class:`metarep.app.limits.Limits`.
        shared: the folder that the workers of one server share; None for a server that is one process.
    """

    def __init__(self, folder: ModelStore[Any], limits: Limits, shared: Path | None = None) -> None:
        self.folder, self.limits, self.metrics = folder, limits, Metrics(shared)
        self.batcher = Batcher(folder, on_batch=lambda images: self.metrics.observe("metarep_batch_images", images))
        self.exporter = Exporter(folder, shared)
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
        self, function: Callable[[Any, Tensor], T], pixels: Tensor | None = None, names: Sequence[str] = ()
    ) -> T:
        """Run ``function(model, rows)`` on the thread that encodes images; see :meth:`Batcher.submit`."""
        return await asyncio.wrap_future(self.batcher.submit(pixels, function, names))

    async def model(self) -> Any:  # noqa: ANN401 - of one class an image, or of several labels
        """Return the model as it is on disk now."""
        return await self.run(lambda model, _: model)

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


def service_of(request: Request) -> Any:  # noqa: ANN401 - each route knows which service it has
    """Return the service of the application that a request is for."""
    return request.app.state.service


Served = Annotated[Service, Depends(service_of)]
