"""Embedder: from image files to vectors, by a trained encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarep.datasets.decode import decode_all
from metarep.datasets.folder_tree import shown
from metarep.device import keep_freed_memory
from metarep.encoders import Precision, space_of
from metarep.errors import DataError
from metarep.photographs import STRETCH
from metarep.pretrained import Representation

BATCH = 256  # on an accelerator


class Embedder:
    """Decodes files as the encoder wants them and embeds them, a batch at a time, while others decode the next.

    Args:
        representation: whose encoder embeds.
        device: to embed on.
        precision: of the encoder; an index should have been built in the one it is asked in.
    """

    def __init__(
        self, representation: Representation, device: torch.device | str = "cpu", precision: Precision = "float32"
    ) -> None:
        self.device, self.encoder = device, representation.encoder.to(device).eval()
        self.encoder.precision = precision
        self.batch = BATCH if torch.device(device).type != "cpu" else self.encoder.at_once
        self.space, self.dim = space_of(self.encoder), self.encoder.dim

    def __call__(self, files: Sequence[Path]) -> tuple[Float[Tensor, "n dim"], list[DataError | None]]:
        """Vectors of the files that can be read, in order, and for each file None or why it cannot."""
        keep_freed_memory()
        wanted = self.encoder.preprocess
        sources = [(file, shown(file)) for file in files]
        rows, waiting, errors = [torch.empty(0, self.dim)], list[np.ndarray](), list[DataError | None]()
        for pixels in decode_all(sources, size=wanted.size, channels=wanted.channels, stretch=STRETCH):
            if isinstance(pixels, DataError):
                errors.append(pixels)
                continue
            errors.append(None)
            waiting.append(pixels)
            if len(waiting) == self.batch:
                rows.append(self._embed(waiting))
                waiting.clear()
        return torch.cat([*rows, self._embed(waiting)] if waiting else rows), errors

    def _embed(self, images: list[np.ndarray]) -> Float[Tensor, "n dim"]:
        with torch.no_grad():
            return self.encoder(torch.from_numpy(np.stack(images)).to(self.device)).float().cpu()
