"""Index: where vectors live, and which of them are near."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError, refuse_unknown_settings, unknown
from metarep.machine import faster
from metarep.machine.files import read_tensors, write_tensors

FORMAT = 1
TINY = np.finfo(np.float32).tiny
Rows = np.ndarray  # (n, dim) float32, each of length 1 or 0
Numbers = Tensor | np.ndarray | Sequence[Any]  # whatever torch.as_tensor takes


class SpaceError(MetarepError):
    """Vectors of one encoder meet an index of another's: no distance between them means anything."""


class Index(ABC):
    """Vectors by id, and the nearest of them: what all backends promise.

    Scores are cosines and go up: rows and queries are put on the unit sphere as they come in (a row of zeros stays,
    and has the score 0 with everything). Ids are whole numbers from 0, the caller's own, never positions; -1 with the
    score -inf stands where there are fewer than ``k``. Whatever is refused leaves the index as it was.

    A backend writes ``_add``, ``_remove``, ``_search`` and the few after them, for input that has been checked; its
    settings are the keyword-only parameters of its constructor.

    Args:
        dim: numbers a vector.
        space: the digest of the encoder whose vectors these are (see :func:`metarep.encoders.space_of`). Vectors that
            come with another are refused; those that come with none are taken at the caller's word.
    """

    name: ClassVar[str]
    backends: ClassVar[dict[str, type["Index"]]] = {}  # by name: what :meth:`load` can make

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            Index.backends.setdefault(cls.name, cls)

    def __init__(self, dim: int, space: str = "") -> None:
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise MetarepError(f"vectors have 1 number or more, not dim={dim!r}")
        self.dim, self.space = dim, space

    def add(self, ids: Numbers, vectors: Numbers, *, space: str | None = None) -> None:
        """Keep vectors under new ids, all or none.

        Args:
            ids: ``(n,)`` whole numbers from 0 that the index does not hold.
            vectors: ``(n, dim)``, of any length but finite.
            space: of the encoder they are from.

        Raises:
            SpaceError: they are from another encoder than those that are here.
            MetarepError: an id that is there already or twice, a negative one, another dimension, not a number.
        """
        self.check_space(space)
        new, rows = _whole("ids", ids), self._unit("vectors", vectors)
        if len(new) != len(rows):
            raise MetarepError(f"{len(new)} ids do not name {len(rows)} vectors; give one id for each")
        if len(new) > 1 and len(torch.unique(new)) < len(new):
            values, counts = torch.unique(new, return_counts=True)
            raise MetarepError(f"id {int(values[counts > 1][0])} is given twice; every vector needs an id of its own")
        there = self._holds(new)
        if there.any():
            raise MetarepError(
                f"id {int(new[there][0])} is in the index already ({int(there.sum())} of {len(new)} are); remove it "
                "first, or choose another"
            )
        if len(new):
            self._add(new, rows)

    def remove(self, ids: Numbers) -> None:
        """Forget vectors, all or none.

        Raises:
            MetarepError: an id that is not there.
        """
        old = torch.unique(_whole("ids", ids))
        there = self._holds(old)
        if not there.all():
            missing = int((~there).sum())
            raise MetarepError(f"there is no id {int(old[~there][0])} in the index ({missing} of {len(old)} are not)")
        if len(old):
            self._remove(old)

    def search(
        self, queries: Numbers, k: int, allowed: Numbers | None = None, *, space: str | None = None
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """The ``k`` nearest of each query, best first.

        Args:
            queries: ``(n, dim)``.
            k: how many.
            allowed: ids that may be found; those that are not in the index are passed over. None allows all.
            space: of the encoder that the queries are from.

        Returns:
            Scores (cosines) and ids, on the CPU; -inf and -1 where there are fewer.

        Raises:
            SpaceError: the queries are from another encoder.
            MetarepError: another dimension, not a number, ``k`` below 1.
        """
        self.check_space(space)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise MetarepError(f"k must be 1 neighbour or more, not {k!r}")
        rows = self._unit("queries", queries)
        some = None if allowed is None else torch.unique(_whole("allowed", allowed))
        found = min(k, len(self) if some is None else min(len(self), len(some)))
        if not len(rows) or not found:
            return torch.full((len(rows), k), -torch.inf), torch.full((len(rows), k), -1)
        scores, ids = self._search(rows, found, some)
        if found < k:
            scores = torch.nn.functional.pad(scores, (0, k - found), value=-torch.inf)
            ids = torch.nn.functional.pad(ids, (0, k - found), value=-1)
        return scores, ids

    def vectors(self, ids: Numbers) -> Float[Tensor, "n dim"]:
        """The vectors of these ids, of length 1, as the backend keeps them: a compressed one gives what it has.

        Raises:
            MetarepError: an id that is not there.
        """
        asked = _whole("ids", ids)
        there = self._holds(asked)
        if not there.all():
            raise MetarepError(f"there is no id {int(asked[~there][0])} in the index")
        return self._vectors(asked) if len(asked) else torch.empty(0, self.dim)

    def check_space(self, space: str | None) -> None:
        """Raise if ``space`` is another than this index's; None and an index that knows none pass."""
        if space is not None and self.space and space != self.space:
            raise SpaceError(
                f"this index holds vectors of the encoder {self.space}, and these are of {space or 'an unknown one'}; "
                "use the encoder it was built with, or build an index for this one"
            )

    def save(self, path: Path | str) -> None:
        """Write one file, whole or not at all: what stood there before stays until the last moment."""
        header = {"format": FORMAT, "index": self.name, "dim": self.dim, "space": self.space}
        tensors, more = self._saved()
        write_tensors(Path(path), tensors, {**header, "settings": self.chosen_settings(), "more": more, "n": len(self)})

    @classmethod
    def load(cls, path: Path | str, **settings: Any) -> "Index":  # noqa: ANN401 - the backend's own
        """What :meth:`save` wrote: ``Index.load`` reads any backend's file, ``ExactIndex.load`` only its own.

        Args:
            path: the file.
            settings: instead of those that were saved, such as ``device`` or ``url``.

        Raises:
            MetarepError: no such file, a damaged one, or another backend's.
        """
        tensors, header = read_tensors(Path(path))
        if header.get("format") != FORMAT or not isinstance(header.get("settings"), dict):
            raise MetarepError(f"{path} is not a metarep index of format {FORMAT}")
        kind = Index.backends.get(header.get("index", ""))
        if kind is None:
            raise unknown("index", str(header.get("index")), Index.backends)
        if not issubclass(kind, cls):
            raise MetarepError(f"{path} holds an index of kind {kind.name}; load it with {kind.__name__} or Index")
        refuse_unknown_settings(kind.name, kind.__init__, settings)
        try:
            index = kind(header["dim"], header["space"], **(header["settings"] | settings))
            index._restore(tensors, header["more"])
            if len(index) != header["n"] and not index.lives_elsewhere:
                raise ValueError(f"{len(index)} vectors instead of {header['n']}")
        except MetarepError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise MetarepError(f"{path} is damaged, or of a newer metarep: {error}") from error
        return index

    lives_elsewhere: ClassVar[bool] = False  # on a server: what is saved is where

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Let go of a connection; nothing to do for an index in memory."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of vectors."""

    @abstractmethod
    def ids(self) -> Int[Tensor, " n"]:
        """All ids, ascending."""

    @abstractmethod
    def _add(self, ids: Int[Tensor, " n"], rows: Rows) -> None: ...

    @abstractmethod
    def _remove(self, ids: Int[Tensor, " n"]) -> None: ...

    @abstractmethod
    def _search(
        self, queries: Rows, k: int, allowed: Int[Tensor, " m"] | None
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """As :meth:`search`; ``k`` is at most the number of vectors, and ``allowed`` ascends and is not empty."""

    @abstractmethod
    def _holds(self, ids: Int[Tensor, " n"]) -> Tensor:
        """Which of the ids are there, as booleans."""

    @abstractmethod
    def _vectors(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n dim"]: ...

    @abstractmethod
    def _saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What restores it: tensors, and what JSON holds."""

    @abstractmethod
    def _restore(self, tensors: dict[str, Tensor], more: dict[str, Any]) -> None: ...

    @abstractmethod
    def chosen_settings(self) -> dict[str, Any]:
        """Keyword arguments of the constructor that make this index again."""

    def _unit(self, what: str, values: Numbers) -> Rows:
        """Rows as float32 of length 1.

        In numpy's hands, and in torch's as late as can be: this is what a search adds to faiss, and after some
        milliseconds of searching the first operation of each library takes fifty microseconds to find its way.
        """
        rows = values if isinstance(values, np.ndarray) and values.dtype == np.float32 else torch.as_tensor(values)
        if rows.ndim == 1 and not len(rows):
            rows = rows.reshape(0, self.dim)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise MetarepError(f"{what} must have shape (n, {self.dim}), not {tuple(rows.shape)}")
        if isinstance(rows, Tensor):
            rows = rows.detach().to("cpu", torch.float32).numpy()
        return _unit_rows(what, rows)


def _unit_rows(what: str, rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; zeros stay. Rows that have it already, as an encoder's features often do, may not be copied."""
    unit = faster.unit_rows(rows)
    if unit is not None:
        return unit
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    if len(rows) and not np.isfinite(squares.max()):
        row = int(np.flatnonzero(~np.isfinite(squares))[0])
        raise MetarepError(f"row {row} of the {what} holds what is not a finite number (or its length is not one)")
    return np.divide(rows, np.sqrt(np.maximum(squares, TINY))[:, None], order="C")


def _whole(what: str, values: Numbers) -> Int[Tensor, " n"]:
    """Ids as int64 on the CPU."""
    ids = torch.as_tensor(values)
    if not ids.numel():
        return torch.empty(0, dtype=torch.int64)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool or ids.ndim != 1:
        raise MetarepError(f"{what} must be whole numbers of shape (n,), not {ids.dtype} of shape {tuple(ids.shape)}")
    ids = ids.to("cpu", torch.int64)
    if int(ids.min()) < 0:
        raise MetarepError(f"{what} must be 0 or more, not {int(ids.min())}: -1 stands for nothing found")
    return ids
