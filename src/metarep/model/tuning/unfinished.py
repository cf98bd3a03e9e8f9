"""Unfinished: the finished pieces of a tuning on disk, so that one that was killed goes on where it was."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from metarep.errors import MetarepError
from metarep.machine.files import read_tensors, write_tensors
from metarep.weights.representation import Representation

FORMAT = 3  # to be raised when a piece means something else


class Unfinished:
    """Keeps tensors by the name of a piece of work, in a file that is there only until the work is finished.

    Args:
        path: the file; None to keep nothing. A damaged one is not read, and is replaced.

    Attributes:
        reused: the names of the pieces that an earlier command finished, and this one asked for.

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Unfinished(Path(folder) / "work").put("fold-0", {"scores": torch.ones(2)})
    ...     again = Unfinished(Path(folder) / "work")
    ...     again.get("fold-0"), again.get("fold-1")
    ({'scores': tensor([1., 1.])}, None)
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.pieces, self.reused = path, dict[str, dict[str, Tensor]](), set[str]()
        if path is not None and path.is_file():
            with suppress(MetarepError):
                for name, tensor in read_tensors(path)[0].items():
                    piece, _, own = name.partition("/")
                    self.pieces.setdefault(piece, {})[own] = tensor
        self._earlier = frozenset(self.pieces)

    def get(self, piece: str) -> dict[str, Tensor] | None:
        """The tensors of a piece; None if it is not finished."""
        if piece in self._earlier:
            self.reused.add(piece)
        return self.pieces.get(piece)

    def put(self, piece: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Notes that a piece is finished, and returns its tensors. A disk that is full stops nothing."""
        self.pieces[piece] = tensors
        if self.path is not None:
            every = {
                f"{name}/{own}": tensor for name, own_all in self.pieces.items() for own, tensor in own_all.items()
            }
            with suppress(MetarepError):
                write_tensors(self.path, every, {})
        return tensors

    def forget(self) -> None:
        """Removes the file."""
        self.pieces = {}
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def key_of(
    representation: Representation,
    head: dict[str, Any] | None,
    labels: Sequence[str],
    *images: UInt8[Tensor, "n c h w"],
    groups: Sequence[str] = (),
) -> str:
    """A name for work on these images with this encoder, which no other work has.

    Args:
        representation: the encoder.
        head: name and settings of the learner.
        labels: the classes of the labelled images.
        images: the labelled images, and others.
        groups: the groups of the labelled images.
    """
    about = [FORMAT, representation.digest, head, list(labels), list(groups), [list(each.shape) for each in images]]
    digest = hashlib.sha256(json.dumps(about).encode())
    for each in images:
        digest.update(each.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
