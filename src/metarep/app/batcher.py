"""Batcher: one thread that encodes the images of concurrent requests together."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from metarep.errors import DataError
from metarep.model.store import ModelStore

T = TypeVar("T")


@dataclass
class Work:
    """One call that waits for the batcher's thread.

    Args:
        pixels: images to encode, ``n c h w`` in uint8; None if the call needs no images.
        function: called with the model as it is on disk then, and the prepared rows of the images.
        result: receives what ``function`` returns or raises.
        names: what an error calls the images.
    """

    pixels: Tensor | None
    function: Callable[[Any, Tensor], Any]
    result: Future[Any]
    names: Sequence[str] = ()


class Batcher:
    """Collects concurrent requests into one batch and encodes it on a single thread.

    One batch of eight is cheaper than eight batches of one, and two threads that run the same network slow each other
    down.

    Args:
        folder: the model folder; every batch uses the model as it is on disk at that moment.
        batch_size: images after which a batch is not extended; one request may still bring more.
        wait: seconds that the first request of a batch waits for others.
        on_batch: called with the number of images of each batch.
    """

    def __init__(
        self,
        folder: ModelStore[Any],
        *,
        batch_size: int = 64,
        wait: float = 0.004,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self.folder, self.batch_size, self.wait, self.on_batch = folder, batch_size, wait, on_batch
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. Calls that were submitted before are done first."""
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the calls that were submitted before, and end the thread."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread is not None and self._thread.is_alive()

    def submit(
        self, pixels: Tensor | None, function: Callable[[Any, Tensor], T], names: Sequence[str] = ()
    ) -> "Future[T]":
        """Run ``function(model, rows)`` on the batcher's thread.

        Args:
            pixels: images to encode, ``n c h w`` in uint8, or None.
            function: what to run; ``rows`` is what the learner prepared of the images, one row per image.
            names: what an error calls the images.

        Returns:
            A future of what ``function`` returns. It raises what ``function`` raises, or a DataError that names an
            image whose features are NaN or infinite.
        """
        work = Work(pixels, function, Future(), names)
        self._queue.put(work)
        return work.result

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            works, stopped = self._gather(first)
            self._do([work for work in works if work.result.set_running_or_notify_cancel()])
            if stopped:
                return

    def _gather(self, first: Work) -> tuple[list[Work], bool]:
        """Collect the calls of one batch; the second value says that the thread shall end after it."""
        works, images, deadline = [first], _count(first), time.monotonic() + self.wait
        while images and images < self.batch_size:  # a call without images gains nothing from waiting
            try:
                work = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if work is None:
                return works, True
            works.append(work)
            images += _count(work)
        return works, False

    def _do(self, works: list[Work]) -> None:
        try:
            model = self.folder.model
            rows = self._encode(model, [work for work in works if work.pixels is not None])
        except DataError as error:
            if len(works) == 1:
                works[0].result.set_exception(error)
                return
            for work in works:  # encode each alone: an image of one request must not be named to the others
                self._do([work])
            return
        except Exception as error:
            for work in works:
                work.result.set_exception(error)
            return
        for work in works:
            own, rows = rows[: _count(work)], rows[_count(work) :]
            try:
                work.result.set_result(work.function(model, own))
            except Exception as error:
                work.result.set_exception(error)

    def _encode(self, model: Any, works: list[Work]) -> Tensor:  # noqa: ANN401 - of either kind
        pixels = [work.pixels for work in works if work.pixels is not None]
        if not pixels:
            return torch.zeros(0, 0)
        if self.on_batch:
            self.on_batch(sum(map(len, pixels)))
        names = [name for work in works for name in work.names or map("image {}".format, range(_count(work)))]
        return model.prepare(torch.cat(pixels), batch=self.batch_size, names=names)


def _count(work: Work) -> int:
    return 0 if work.pixels is None else len(work.pixels)
