"""Embedder: from image files to vectors, by a trained encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarep.checkpoint import Checkpoint
from metarep.datasets.decode import decode_all
from metarep.datasets.folder_tree import shown
from metarep.encoders import Precision
from metarep.errors import DataError
from metarep.index.space import space_of
from metarep.zoo import load_trained


def open_encoder(spec: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """What ``--encoder`` names: a run folder, a ``.safetensors`` file, or a model that ships. The one place to ask."""
    return load_trained(spec, device)


class Embedder:
    """Decodes files as the encoder wants them and embeds them, a batch at a time.

    Args:
        trained: whose learner embeds.
        precision: of the encoder; an index should have been built in the one it is asked in.
    """

    def __init__(self, trained: Checkpoint, precision: Precision = "float32") -> None:
        self.learner = trained.learner.eval()
        self.encoder = trained.learner.encoder
        self.encoder.precision = precision
        self.space, self.dim = space_of(self.encoder), self.encoder.dim

    def __call__(self, files: Sequence[Path]) -> tuple[Float[Tensor, "n dim"], list[DataError | None]]:
        """Vectors of the files that can be read, in order, and for each file None or why it cannot."""
        wanted = self.encoder.preprocess
        sources = [(file, shown(file)) for file in files]
        images, errors = [], []
        for pixels in decode_all(sources, size=wanted.size, channels=wanted.channels):
            errors.append(pixels if isinstance(pixels, DataError) else None)
            if not isinstance(pixels, DataError):
                images.append(pixels)
        if not images:
            return torch.empty(0, self.dim), errors
        with torch.no_grad():
            batch = torch.from_numpy(np.stack(images)).to(self.learner.device)
            return self.learner.embed(batch).float().cpu(), errors
