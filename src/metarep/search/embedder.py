"""Embedder: from image files to vectors, by a trained encoder."""

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
from metarep.weights.named import Representation

BATCH = 256  # on an accelerator


class Embedder:
    """Decodes files as the encoder wants them and embeds them, a batch at a time, while others decode the next.

    Attributes:
        depth: black and white of files of more than 8 bits; see :mod:`metarep.data.reading.depth`.

    Args:
        representation: whose encoder embeds.
        device: to embed on.
        precision: of the encoder; an index should have been built in the one it is asked in.
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
        """Vectors of the files that can be read, in order, and for each file None or why it cannot."""
        keep_freed_memory()
        wanted = self.encoder.preprocess
        sources = [(file, shown(file)) for file in files]
        depth = depth or self.depth
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
        with torch.no_grad(), computing(self.encoder, self.precision):
            return self.encoder(torch.from_numpy(np.stack(images)).to(self.device)).float().cpu()

    def learn_depth(self, files: Sequence[Path], told: Depth, keep: Path) -> Depth:
        """How to read these new files; what was not known yet is remembered, and written to ``keep``."""
        how = notice([(file, str(file)) for file in files], self.depth | told)
        known = how | self.depth
        if known != self.depth:
            write_depth(keep, known)
            self.depth = known
        return how

    def _finite(
        self, rows: Tensor, files: Sequence[Path], errors: list[DataError | None]
    ) -> tuple[Float[Tensor, "n dim"], list[DataError | None]]:
        """Without the rows that are no finite numbers, whose files count as unreadable."""
        lost = lost_rows(rows, self.encoder)
        read = [place for place, error in enumerate(errors) if error is None]
        for row in lost:
            errors[read[row]] = lost_error(shown(files[read[row]]), rows[row], self.encoder)
        kept = [row for row in range(len(rows)) if row not in set(lost)] if lost else slice(None)
        return rows[kept], errors
