"""SupCon: find the views of the same class among all views of a batch."""

from typing import Any, ClassVar

import torch
from torch import Generator

from metarep.data.batch import Batch, LabelledViewBatch
from metarep.encoders import Encoder
from metarep.errors import above
from metarep.learners.prototypes import Prototypes
from metarep.methods.contrastive import Projector, gauge, sup_con
from metarep.methods.method import Method, Step


class SupCon(Method[LabelledViewBatch]):
    """SupCon: pull all views of a class together, and away from all other images of the batch; with labels.

    Khosla et al., Supervised Contrastive Learning, 2020. It is SimCLR whose positives are all views of the class, and
    a metric method with as many positives and negatives as the batch has. Trap: the mean over the positives is outside
    of the logarithm (L_out). The other form, L_in, looks alike and learns less.

    Args:
        encoder: the representation to train.
        temperature: divides the cosines; a lower one gives more weight to the most similar other classes.
        hidden: units of the projector's hidden layer; 0 for a linear projector.
        outputs: length of a projection.

    >>> from metarep import Preprocess, LabelledViewBatch
    >>> images = 255 * torch.eye(2, dtype=torch.uint8).view(2, 1, 1, 2)
    >>> pixels = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> same = torch.tensor([0, 0])  # both images are of one class
    >>> batch = LabelledViewBatch(images, torch.arange(2), second=images, labels=same, classes=same)
    >>> step = SupCon(pixels, temperature=1e6).step(batch, progress=0.0, generator=torch.Generator())
    >>> round(step.loss.item(), 4)  # at such a temperature each of the 3 other views is as likely: log(3)
    1.0986
    """

    eats: ClassVar[type[Batch]] = LabelledViewBatch
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Khosla et al. 2020"
    spans_batch: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {"ways": 64, "shots": 2, "steps": 1000}

    def __init__(self, encoder: Encoder, *, temperature: float = 0.1, hidden: int = 512, outputs: int = 128) -> None:
        super().__init__()
        above("temperature", temperature)
        self.temperature = temperature
        self.learner = Prototypes(encoder, "cosine", temperature=0.1)
        self.projector = Projector(encoder.dim, outputs, hidden=hidden)

    def step(self, batch: LabelledViewBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """The SupCon loss of a batch; the log has spread and rank."""
        features = self.learner.embed(torch.cat([batch.images, batch.second]))
        projected = batch.whole_views(self.projector(features))
        first, second = projected.chunk(2)
        loss = sup_con(first, second, batch.labels, self.temperature)
        return Step(loss, gauge(batch.whole_views(features.detach()), projected))
