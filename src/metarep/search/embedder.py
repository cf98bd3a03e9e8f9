"""Embedder: maps image files to feature vectors with a trained encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarep.data.reading.decode import decode_all
from metarep.data.reading.depth import Depth, write_depth
from metarep.data.reading.depth_survey import notice
from metarep.data.reading.folder_tree import shown
from metarep.data.reading.photographs import STRETCH
from metarep.encoders import Precision, computing, space_of
from metarep.encoders.finite import lost_error, lost_rows
from metarep.errors import DataError
from metarep.machine.device import keep_freed_memory
from metarep.machine.ranks import ranks
from metarep.search.sharing import embed_together
from metarep.weights.named import Representation

BATCH = 256  # images at a time on a GPU


class Embedder:
    """Decodes image files at the encoder's size and embeds them in batches. Other threads decode the next batch.

    Args:
        representation: the encoder.
        device: the device that embeds.
        precision: the precision of the encoder. Queries should be embedded in the precision of the index.

    Attributes:
        depth: black and white of files of more than 8 bits; see :mod:`metarep.data.reading.depth`.
    """

    def __init__(
        self, representation: Representation, device: torch.device | str = "cpu", precision: Precision = "float32"
    ) -> None:
        self.device = device
        self.precision: Precision = precision
        self.encoder = representation.encoder.to(device).eval()
        self.depth = representation.depth
        self.batch = BATCH if torch.device(device).type != "cpu" else self.encoder.at_once
        self.space, self.dim = space_of(self.encoder), self.encoder.dim

    def __call__(
        self, files: Sequence[Path], depth: Depth | None = None
    ) -> tuple[Float[Tensor, "n dim"], list[DataError | None]]:
        """Embeds image files.

        Args:
            files: the image files.
            depth: black and white of these files, instead of the embedder's own.

        Returns:
            The vectors of the readable files in order, float32 of shape ``(n, dim)`` on the CPU; and for each file None
            or the error.
        """
        depth = depth or self.depth
        if ranks() > 1:
            return embed_together(self.embed, files, depth, self.batch)
        return self.embed(files, depth)

    def embed(self, files: Sequence[Path], depth: Depth) -> tuple[Float[Tensor, "n dim"], list[DataError | None]]:
        """Embeds image files in this process alone; otherwise as a call of this object."""
        keep_freed_memory()
        wanted = self.encoder.preprocess
        sources = [(file, shown(file)) for file in files]
        rows, waiting, errors = [torch.empty(0, self.dim)], list[np.ndarray](), list[DataError | None]()
        for pixels in decode_all(sources, size=wanted.size, channels=wanted.channels, stretch=STRETCH, depth=depth):
            if isinstance(pixels, DataError):
                errors.append(pixels)
                continue
            errors.append(None)
            waiting.append(pixels)
            if len(waiting) == self.batch:
                rows.append(self._embed(waiting))
                waiting.clear()
        rows += [self._embed(waiting)] if waiting else []
        return self._finite(torch.cat(rows), files, errors)

    def _embed(self, images: list[np.ndarray]) -> Float[Tensor, "n dim"]:
        """Returns the vectors of one batch of decoded images."""
        with torch.no_grad(), computing(self.encoder, self.precision):
            return self.encoder(torch.from_numpy(np.stack(images)).to(self.device)).float().cpu()

    def learn_depth(self, files: Sequence[Path], chosen: Depth, keep: Path) -> Depth:
        """Finds black and white of new files, and stores what was not known before.

        Args:
            files: the new files.
            chosen: what the user chose; it goes before what the embedder knows.
            keep: the JSON file that what is new is written to.

        Returns:
            Black and white with which these files are to be read.
        """
        depth = notice([(file, str(file)) for file in files], self.depth | chosen)
        known = depth | self.depth
        if known != self.depth:
            write_depth(keep, known)
            self.depth = known
        return depth

    def _finite(
        self, rows: Tensor, files: Sequence[Path], errors: list[DataError | None]
    ) -> tuple[Float[Tensor, "n dim"], list[DataError | None]]:
        """Removes rows that hold NaN or infinite values. Their files count as unreadable."""
        lost = lost_rows(rows, self.encoder)
        read = [position for position, error in enumerate(errors) if error is None]
        for row in lost:
            errors[read[row]] = lost_error(shown(files[read[row]]), rows[row], self.encoder)
        kept = [row for row in range(len(rows)) if row not in set(lost)] if lost else slice(None)
        return rows[kept], errors
