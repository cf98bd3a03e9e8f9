"""Batcher: one thread does the arithmetic of all requests, and encodes together what comes at about the same time."""

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
from metarep.model.folder import ModelFolder
from metarep.model.model import Model

T = TypeVar("T")


@dataclass
class Work:
    """What a request waits for.

    Args:
        pixels: images to encode, ``n c h w`` in uint8; None if there are none.
        then: what to make of the model as it is now and what it prepared of the images.
        answer: where that goes.
        names: what to call the images in an error.
    """

    pixels: Tensor | None
    then: Callable[[Model, Tensor], Any]
    answer: Future[Any]
    names: Sequence[str] = ()


class Batcher:
    """Two threads that run one network on two cores stand in each other's way; a batch of eight costs less than eight.

    Args:
        folder: the model; every batch sees it as it is on disk then.
        most: images a batch.
        wait: seconds that the first of a batch waits for others.
        seen: told the number of images of each batch.
    """

    def __init__(
        self, folder: ModelFolder, *, most: int = 64, wait: float = 0.004, seen: Callable[[int], None] | None = None
    ) -> None:
        self.folder, self.most, self.wait, self.seen = folder, most, wait, seen
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread when it has done what was asked of it before."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def submit(
        self, pixels: Tensor | None, then: Callable[[Model, Tensor], T], names: Sequence[str] = ()
    ) -> "Future[T]":
        """``then(model, rows)`` with the rows of these images, as soon as the thread comes to it."""
        work = Work(pixels, then, Future(), names)
        self._queue.put(work)
        return work.answer

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            works, stopped = self._gather(first)
            self._do([work for work in works if work.answer.set_running_or_notify_cancel()])
            if stopped:
                return

    def _gather(self, first: Work) -> tuple[list[Work], bool]:
        works, images, until = [first], _count(first), time.monotonic() + self.wait
        while images and images < self.most:  # what brings no image has nothing to gain from waiting
            try:
                work = self._queue.get(timeout=max(0.0, until - time.monotonic()))
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
                works[0].answer.set_exception(error)
                return
            for work in works:  # an image of one request must not be told to the others
                self._do([work])
            return
        except Exception as error:
            for work in works:
                work.answer.set_exception(error)
            return
        for work in works:
            own, rows = rows[: _count(work)], rows[_count(work) :]
            try:
                work.answer.set_result(work.then(model, own))
            except Exception as error:
                work.answer.set_exception(error)

    def _encode(self, model: Model, works: list[Work]) -> Tensor:
        pixels = [work.pixels for work in works if work.pixels is not None]
        if not pixels:
            return torch.zeros(0, 0)
        if self.seen:
            self.seen(sum(map(len, pixels)))
        names = [name for work in works for name in work.names or map("image {}".format, range(_count(work)))]
        return model.prepare(torch.cat(pixels), batch=self.most, names=names)


def _count(work: Work) -> int:
    return 0 if work.pixels is None else len(work.pixels)
