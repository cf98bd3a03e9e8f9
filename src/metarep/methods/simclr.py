"""SimCLR: find the other view of the same image among all views of a batch."""

from typing import Any, ClassVar

import torch
from torch import Generator

from metarep.data.batch import Batch, ViewBatch
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.learners.prototypes import Prototypes
from metarep.methods.contrastive import Projector, gauge, nt_xent
from metarep.methods.method import Method, Step


class SimCLR(Method[ViewBatch]):
    """SimCLR: contrast two views of each image with all other images of the batch; no labels.

    Chen, Kornblith, Norouzi, Hinton, A Simple Framework for Contrastive Learning of Visual Representations, 2020. Both
    views are encoded as one batch, as in the paper. Trap: the features are deployed, and not the projections that the
    loss compares.

    Args:
        encoder: the representation to train.
        temperature: divides the cosines; a lower one gives more weight to the most similar other images.
        hidden: units of the projector's hidden layer; 0 for a linear projector.
        outputs: length of a projection.

    >>> from metarep import Preprocess, ViewBatch
    >>> images = 255 * torch.eye(2, dtype=torch.uint8).view(2, 1, 1, 2)
    >>> pixels = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> batch = ViewBatch(images, torch.arange(2), second=images)
    >>> step = SimCLR(pixels, temperature=1e6).step(batch, progress=0.0, generator=torch.Generator())
    >>> round(step.loss.item(), 4)  # at such a temperature each of the 3 other views is as likely: log(3)
    1.0986
    """

    eats: ClassVar[type[Batch]] = ViewBatch
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Chen et al. 2020"
    spans_batch: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {"images": 256, "steps": 1000}

    def __init__(self, encoder: Encoder, *, temperature: float = 0.1, hidden: int = 512, outputs: int = 128) -> None:
        super().__init__()
        if not temperature > 0:
            raise MetarepError(f"temperature must be above 0, not {temperature}")
        self.temperature = temperature
        self.learner = Prototypes(encoder, "cosine", temperature=0.1)
        self.projector = Projector(encoder.dim, outputs, hidden=hidden)

    def step(self, batch: ViewBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """The NT-Xent loss of a batch; the log has spread and rank."""
        features = self.learner.embed(torch.cat([batch.images, batch.second]))
        projected = batch.whole_views(self.projector(features))
        first, second = projected.chunk(2)
        return Step(nt_xent(first, second, self.temperature), gauge(batch.whole_views(features.detach()), projected))
