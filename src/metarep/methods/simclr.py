"""SimCLR: of all views in a batch, find the other one of the same image."""

from typing import Any, ClassVar

import torch
from torch import Generator

from metarep.batches import Batch, ViewBatch
from metarep.contrastive import Projector, gauge, nt_xent
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.learners.prototypes import Prototypes
from metarep.methods.method import Method, Step


class SimCLR(Method[ViewBatch]):
    """SimCLR: contrast two views of each image with all other images of the batch; no labels.

    Chen, Kornblith, Norouzi, Hinton, A Simple Framework for Contrastive Learning of Visual Representations, 2020. Both
    views go through the encoder as one batch, as in the paper. Trap: what is deployed are the features, not the
    projections that the loss sees.

    Args:
        encoder: the representation to train.
        temperature: divides the cosines; lower looks harder at the most similar other images.
        hidden: units of the projector between features and loss; 0 for a linear one.
        outputs: length of a projection.

    >>> from metarep import Preprocess, build_encoder
    >>> SimCLR(build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))).eats.called
    'views'
    """

    eats: ClassVar[type[Batch]] = ViewBatch
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Chen et al. 2020"
    defaults: ClassVar[dict[str, Any]] = {"images": 256, "steps": 1000}

    def __init__(self, encoder: Encoder, *, temperature: float = 0.1, hidden: int = 512, outputs: int = 128) -> None:
        super().__init__()
        if not temperature > 0:
            raise MetarepError(f"temperature must be above 0, not {temperature}")
        self.temperature = temperature
        self.learner = Prototypes(encoder, "cosine", temperature=0.1)
        self.projector = Projector(encoder.dim, outputs, hidden=hidden)

    def step(self, batch: ViewBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        features = self.learner.embed(torch.cat([batch.images, batch.second]))
        projected = self.projector(features)
        first, second = projected.chunk(2)
        return Step(nt_xent(first, second, self.temperature), gauge(features, projected))
