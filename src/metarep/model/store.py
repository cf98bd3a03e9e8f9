"""ModelStore: what every model in a folder has in common: it is read when it has changed, and written under a lock."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from metarep.errors import Advice, MetarepError
from metarep.machine.files import locked, making
from metarep.model.hub_copy import model_at, name_of, refuse_copy
from metarep.weights.card import CARD, write_card
from metarep.weights.hub.contents import ENCODER
from metarep.weights.named import load_representation
from metarep.weights.representation import Representation

M = TypeVar("M")
S = TypeVar("S", bound="ModelStore[Any]")


class ModelStore(ABC, Generic[M]):
    """A model in a folder, which several processes may read and change.

    The encoder is a file that never changes. Everything else is one file, which a rename replaces.

    Args:
        path: the folder.
        representation: the encoder in it.
        origin: ``hf:USER/NAME@COMMIT`` of a model on the Hub, which cannot be changed; empty for others.

    Attributes:
        FILE: the name of the file that changes.
        PARTS: the names of the others.
    """

    FILE: ClassVar[str]
    PARTS: ClassVar[tuple[str, ...]] = (ENCODER, CARD, ".lock")

    def __init__(self, path: Path, representation: Representation, origin: str = "") -> None:
        self.path, self.representation, self.origin = path, representation, origin
        self.name = name_of(path, origin)
        self._model: M | None = None
        self._stamp: tuple[int, int] | None = None

    @classmethod
    @contextmanager
    def _making(
        cls: type[S],
        path: Path,
        model: object,
        representation: Representation | None,
        more: list[Advice],
    ) -> Iterator[S]:
        """Yields a new folder, which moves to ``path`` at the end; see :func:`metarep.machine.files.making`.

        Args:
            path: the folder.
            model: the model.
            representation: its encoder.
            more: what else can be done if ``path`` exists.

        Raises:
            MetarepError: ``path`` exists already, another process is making it, or there is no encoder.
        """
        if representation is None:
            raise MetarepError("the model has no encoder, but a model folder needs one; make a model with an encoder")
        exists = MetarepError(f"{path} is there already", advice=["choose another folder", *more])
        busy = MetarepError(
            f"another process is making {path}", advice=["wait until it has ended", "choose another folder"]
        )
        with making(path.resolve(), cls.FILE, cls.PARTS, exists=exists, busy=busy) as partial:
            representation = representation.portable()
            representation.save(partial / ENCODER)
            folder = cls(partial, representation)
            folder.name = path.resolve().name
            folder._write(model)
            yield folder
        folder.path = path

    @classmethod
    def open(cls: type[S], path: str | Path) -> S:
        """Opens a model folder, or one on the Hub (``hf:USER/NAME``) to read; a MetarepError says what is wrong."""
        return cls.at(*model_at(Path(path)))

    @classmethod
    def at(cls: type[S], path: Path, origin: str = "") -> S:
        """Opens a folder that :func:`metarep.model.hub_copy.model_at` has found, and reads its model.

        Raises:
            MetarepError: it is no folder of this kind, or it is damaged.
        """
        cls._refuse_other(path)
        if not (path / ENCODER).is_file():
            raise MetarepError(f"{path} has lost its {ENCODER}; fit it anew")
        folder = cls(path, load_representation(path / ENCODER), origin)
        _ = folder.model
        return folder

    @property
    def model(self) -> M:
        """The model as it is on disk now. It is read again if another process has written it."""
        stamp = self._now()
        model = self._model
        if model is None or stamp != self._stamp:
            model = self._read()
            self._model, self._stamp = model, stamp  # in this order: a thread between the two reads once more
        return model

    @contextmanager
    def writing(self) -> Iterator[Callable[..., M]]:
        """Locks the folder for a change, and yields a function that writes the change.

        Read ``folder.model`` again inside: another process may have written before the lock was taken.
        """
        refuse_copy(self.origin)
        with locked(self.path / ".lock"):
            yield self._change

    def calibrate(self) -> M:
        """Stores what the model says of its own images for later programs, if it is not stored; returns the model."""
        return self.model

    @classmethod
    @abstractmethod
    def _refuse_other(cls, path: Path) -> None:
        """Raises if a path is no folder of this kind."""

    @abstractmethod
    def _change(self, *change: Any, **options: Any) -> M:  # noqa: ANN401 - each kind has its own
        """Writes a change, and returns the model after it."""

    @abstractmethod
    def _read(self) -> M:
        """Reads the model from the file that changes."""

    @abstractmethod
    def _put(self, model: M) -> None:
        """Writes the file that changes, by a rename."""

    @abstractmethod
    def _card(self, model: M) -> str:
        """Returns the card of the model."""

    @property
    def _file(self) -> Path:
        return self.path / self.FILE

    def _write(self, model: M) -> None:
        """Writes the model and its card."""
        before = self._now()[0] if self._file.exists() else 0
        self._put(model)
        if self._now()[0] <= before:  # file times are coarse, but each state needs its own
            os.utime(self._file, ns=(before + 1, before + 1))
        write_card(self.path, self._card(model))

    def _keep(self, model: M) -> None:
        """Writes the model, and remembers it."""
        self._write(model)
        self._model, self._stamp = model, self._now()

    def _now(self) -> tuple[int, int]:
        """Returns the time of the last write in nanoseconds and the inode: the version of the file on disk."""
        status = self._file.stat()
        return status.st_mtime_ns, status.st_ino
