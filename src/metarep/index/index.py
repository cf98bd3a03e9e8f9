"""Index: the interface of all vector indexes, with the checks of their input."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError, one_line, refuse_unknown_settings, unknown
from metarep.machine import faster
from metarep.machine.files import read_tensors, write_tensors

FORMAT = 1
TINY = np.finfo(np.float32).tiny
Rows = np.ndarray  # (n, dim) float32; each row has length 1 or 0
Numbers = Tensor | np.ndarray | Sequence[Any]  # anything that torch.as_tensor takes


class SpaceError(MetarepError):
    """The vectors come from another encoder than those of the index, so their distances have no meaning."""


class Index(ABC):
    """Stores vectors by id, and searches the nearest of them. This is the interface of all backends.

    Scores are cosines, so higher is nearer. Vectors and queries are normalised to length 1. A row of zeros stays, and
    has the score 0 with every vector. Ids are whole numbers from 0 that the caller chooses; they are not positions. A
    result with fewer than ``k`` vectors is filled with the id -1 and the score -inf. A call that raises leaves the
    index unchanged.

    A backend implements ``_add``, ``_remove``, ``_search`` and the other abstract methods, for input that has been
    checked. Its settings are the keyword-only parameters of its constructor.

    Args:
        dim: the number of dimensions of a vector.
        space: the digest of the encoder of the vectors (see :func:`metarep.encoders.space_of`). Vectors with another
            digest are refused. Vectors without a digest are not checked.

    >>> index = Index.backends["exact"](2)
    >>> index.add([4, 7], [[1.0, 0.0], [0.0, 3.0]])
    >>> scores, ids = index.search([[2.0, 0.0]], k=2)
    >>> ids.tolist(), scores.tolist(), index.vectors([7]).tolist()
    ([[4, 7]], [[1.0, 0.0]], [[0.0, 1.0]])
    >>> index.remove([4])
    >>> index.ids().tolist()
    [7]
    """

    name: ClassVar[str]
    backends: ClassVar[dict[str, type["Index"]]] = {}  # by name: what :meth:`load` can make

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            Index.backends.setdefault(cls.name, cls)

    def __init__(self, dim: int, space: str = "") -> None:
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise MetarepError(f"dim={dim!r} is not a number of dimensions; give a whole number from 1")
        self.dim, self.space = dim, space

    def add(self, ids: Numbers, vectors: Numbers, *, space: str | None = None) -> None:
        """Adds vectors under new ids. If one cannot be added, none is.

        Args:
            ids: whole numbers from 0 that the index does not hold, shape ``(n,)``.
            vectors: finite vectors of any length, shape ``(n, dim)``.
            space: the digest of the encoder of these vectors; None if it is unknown.

        Raises:
            SpaceError: the vectors come from another encoder than those of the index.
            MetarepError: an id is negative, given twice or already in the index; or the vectors have another dimension
                or hold NaN or infinite values.
        """
        self.check_space(space)
        new, rows = _whole("ids", ids), self._unit("vectors", vectors)
        if len(new) != len(rows):
            raise MetarepError(f"{len(new)} ids do not name {len(rows)} vectors; give one id for each")
        if len(new) > 1 and len(torch.unique(new)) < len(new):
            values, counts = torch.unique(new, return_counts=True)
            raise MetarepError(f"id {int(values[counts > 1][0])} is given twice; every vector needs an id of its own")
        held = self._holds(new)
        if held.any():
            raise MetarepError(
                f"id {int(new[held][0])} is in the index already ({int(held.sum())} of {len(new)} are); remove it "
                "first, or choose another"
            )
        if len(new):
            self._add(new, rows)

    def remove(self, ids: Numbers) -> None:
        """Removes the vectors with these ids. If one is missing, none is removed.

        Raises:
            MetarepError: an id is not in the index.
        """
        old = torch.unique(_whole("ids", ids))
        held = self._holds(old)
        if not held.all():
            missing = int((~held).sum())
            raise MetarepError(
                f"there is no id {int(old[~held][0])} in the index ({missing} of {len(old)} are not); index.ids() "
                "lists those that are"
            )
        if len(old):
            self._remove(old)

    def search(
        self, queries: Numbers, k: int, allowed: Numbers | None = None, *, space: str | None = None
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Searches the ``k`` nearest vectors of each query.

        Args:
            queries: the query vectors, shape ``(n, dim)``.
            k: the number of results for each query.
            allowed: the ids that may be results; ids that the index does not hold are ignored. None allows all.
            space: the digest of the encoder of the queries; None if it is unknown.

        Returns:
            The scores (cosines) and the ids, both of shape ``(n, k)`` on the CPU, the nearest first. If there are fewer
            than ``k`` results, the rest is -inf and -1.

        Raises:
            SpaceError: the queries come from another encoder.
            MetarepError: the queries have another dimension or hold NaN or infinite values, or ``k`` is below 1.
        """
        self.check_space(space)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise MetarepError(f"k must be 1 neighbour or more, not {k!r}")
        rows = self._unit("queries", queries)
        some = None if allowed is None else torch.unique(_whole("allowed", allowed))
        available = min(k, len(self) if some is None else min(len(self), len(some)))
        if not len(rows) or not available:
            return torch.full((len(rows), k), -torch.inf), torch.full((len(rows), k), -1)
        scores, ids = self._search(rows, available, some)
        if available < k:
            scores = torch.nn.functional.pad(scores, (0, k - available), value=-torch.inf)
            ids = torch.nn.functional.pad(ids, (0, k - available), value=-1)
        return scores, ids

    def vectors(self, ids: Numbers) -> Float[Tensor, "n dim"]:
        """Returns the vectors of these ids, shape ``(n, dim)``, of length 1. A compressed index returns approximations.

        Raises:
            MetarepError: an id is not in the index.
        """
        requested = _whole("ids", ids)
        held = self._holds(requested)
        if not held.all():
            raise MetarepError(f"there is no id {int(requested[~held][0])} in the index; index.ids() lists its ids")
        return self._vectors(requested) if len(requested) else torch.empty(0, self.dim)

    def check_space(self, space: str | None) -> None:
        """Checks that the index takes vectors of the encoder ``space``. If either is unknown, the check passes.

        Raises:
            SpaceError: the index holds vectors of another encoder.
        """
        if space is not None and self.space and space != self.space:
            raise SpaceError(
                f"this index holds vectors of the encoder {self.space}, and these are of {space or 'an unknown one'}; "
                "use the encoder it was built with, or build an index for this one"
            )

    def save(self, path: Path | str) -> None:
        """Saves the index to one file. The write is atomic: an earlier file stays until the new one is complete."""
        header = {"format": FORMAT, "index": self.name, "dim": self.dim, "space": self.space}
        tensors, more = self._saved()
        write_tensors(Path(path), tensors, {**header, "settings": self.chosen_settings(), "more": more, "n": len(self)})

    @classmethod
    def load(cls, path: Path | str, **settings: Any) -> "Index":  # noqa: ANN401 - the backend's own
        """Loads an index that :meth:`save` wrote. ``Index.load`` reads any backend, ``ExactIndex.load`` only its own.

        Args:
            path: the file.
            settings: settings that replace the saved ones, such as ``device`` or ``url``.

        Raises:
            MetarepError: the file does not exist, is damaged, or holds an index of another backend.
        """
        tensors, header = read_tensors(Path(path))
        if header.get("format") != FORMAT or not isinstance(header.get("settings"), dict):
            raise MetarepError(f"{path} is not a metarep index of format {FORMAT}; build it anew")
        kind = Index.backends.get(str(header.get("index")))
        if kind is None:
            raise unknown("index", str(header.get("index")), Index.backends)
        if not issubclass(kind, cls):
            raise MetarepError(f"{path} holds an index of kind {kind.name}; load it with {kind.__name__} or Index")
        refuse_unknown_settings(kind.name, kind.__init__, settings)
        try:
            if not isinstance(header["space"], str) or not isinstance(header["more"], dict):
                raise TypeError("its header has a value of another type")
            index = kind(header["dim"], header["space"], **(header["settings"] | settings))
            index._restore(tensors, header["more"])
            if len(index) != header["n"] and not index.lives_elsewhere:
                raise ValueError(f"{len(index)} vectors instead of {header['n']}")
        except MetarepError:
            raise
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, MemoryError) as error:
            raise MetarepError(f"{path} is damaged, or of a newer metarep: {one_line(error)}; build it anew") from error
        return index

    lives_elsewhere: ClassVar[bool] = False  # the vectors are on a server, and the file holds only its address

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Closes the connection to a server. An index in memory has nothing to close."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of vectors."""

    @abstractmethod
    def ids(self) -> Int[Tensor, " n"]:
        """Returns all ids, ascending, shape ``(n,)``."""

    @abstractmethod
    def _add(self, ids: Int[Tensor, " n"], rows: Rows) -> None: ...

    @abstractmethod
    def _remove(self, ids: Int[Tensor, " n"]) -> None: ...

    @abstractmethod
    def _search(
        self, queries: Rows, k: int, allowed: Int[Tensor, " m"] | None
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Searches as :meth:`search` does. ``k`` is at most the number of results; ``allowed`` is sorted, not empty."""

    @abstractmethod
    def _holds(self, ids: Int[Tensor, " n"]) -> Tensor:
        """Returns which of the ids the index holds, as booleans of shape ``(n,)``."""

    @abstractmethod
    def _vectors(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n dim"]: ...

    @abstractmethod
    def _saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Returns what is needed to restore the index: tensors, and values that JSON can hold."""

    @abstractmethod
    def _restore(self, tensors: dict[str, Tensor], more: dict[str, Any]) -> None: ...

    @abstractmethod
    def chosen_settings(self) -> dict[str, Any]:
        """Returns the keyword arguments of the constructor that make an index like this one."""

    def _unit(self, what: str, values: Numbers) -> Rows:
        """Checks vectors, and returns them as float32 rows of length 1; ``what`` names them in an error.

        It stays in numpy and avoids torch calls: this is the overhead that a search adds to faiss, and the first torch
        call after a search takes about 50 µs.
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
    """Normalises rows to length 1; rows of zeros stay. Rows that have this length already may be returned uncopied."""
    unit = faster.unit_rows(rows)
    if unit is not None:
        return unit
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    if len(rows) and not np.isfinite(squares.max()):
        row = int(np.flatnonzero(~np.isfinite(squares))[0])
        raise MetarepError(
            f"row {row} of the {what} holds NaN or an infinite value, or its length is too large; remove it"
        )
    return np.divide(rows, np.sqrt(np.maximum(squares, TINY))[:, None], order="C")


def _whole(what: str, values: Numbers) -> Int[Tensor, " n"]:
    """Checks ids, and returns them as int64 on the CPU; ``what`` names them in an error."""
    ids = torch.as_tensor(values)
    if not ids.numel():
        return torch.empty(0, dtype=torch.int64)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool or ids.ndim != 1:
        raise MetarepError(f"{what} must be whole numbers of shape (n,), not {ids.dtype} of shape {tuple(ids.shape)}")
    ids = ids.to("cpu", torch.int64)
    if int(ids.min()) < 0:
        raise MetarepError(f"{what} must be 0 or more, not {int(ids.min())}: -1 stands for nothing found")
    return ids
