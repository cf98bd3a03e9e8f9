"""Siamese networks: learn from pairs whether two images show the same class."""

from typing import Any, ClassVar, Literal, get_args

from torch import Generator
from torch.nn import functional

from metarep.data.batch import Batch, LabelledBatch
from metarep.encoders import Encoder
from metarep.errors import above, one_of
from metarep.learners.pairwise import Pairwise
from metarep.learners.prototypes import Prototypes
from metarep.methods.losses import centred, pair_loss
from metarep.methods.method import Method, Step
from metarep.methods.pairs import Negatives, mean_where, same_class


class Siamese(Method[LabelledBatch]):
    """Siamese networks: learn from all pairs of a batch, with the contrastive loss or with Koch's head.

    Hadsell, Chopra, LeCun, Dimensionality Reduction by Learning an Invariant Mapping, 2006; Koch, Zemel, Salakhutdinov,
    Siamese Neural Networks for One-shot Image Recognition, 2015. Trap: the form of the loss that is often printed,
    ``max(0, m - y * d**2)``, pushes images of one class apart (see docs/methods/siamese.md).

    Args:
        encoder: the representation to train.
        loss: ``contrastive``, deployed as class means; or ``koch``, a learned weight for each |difference| of features
            with cross-entropy on "same class or not", deployed as the same comparison.
        margin: distance beyond which pairs of different classes have no contrastive loss; on the unit sphere, distances
            are at most 2.
        negatives: which pairs of different classes the contrastive loss averages: all; active, those within the margin;
            or hardest, each image with its nearest image of another class.
        normalise: put features on the unit sphere for the contrastive loss.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))
    >>> Siamese(encoder).learner.called, Siamese(encoder, loss="koch").learner.called
    ('prototypes', 'pairwise')
    """

    eats: ClassVar[type[Batch]] = LabelledBatch
    family: ClassVar[str] = "metric"
    paper: ClassVar[str] = "Hadsell et al. 2006; Koch et al. 2015"
    spans_batch: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {"ways": 64, "shots": 4}

    def __init__(
        self,
        encoder: Encoder,
        *,
        loss: Literal["contrastive", "koch"] = "contrastive",
        margin: float = 1.0,
        negatives: Negatives = "hardest",
        normalise: bool = True,
    ) -> None:
        super().__init__()
        one_of("loss", loss, ("contrastive", "koch"))
        one_of("negatives", negatives, get_args(Negatives))
        above("margin", margin)
        self.margin, self.normalise = margin, normalise
        self.negatives: Negatives = negatives
        if loss == "koch":
            self.learner = Pairwise(encoder)
        else:
            self.learner = Prototypes(encoder, "cosine", temperature=0.1) if normalise else Prototypes(encoder)

    def step(self, batch: LabelledBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """The loss of all pairs of a batch; ``active`` in the log is the share of negative pairs within the margin."""
        features = batch.whole(self.learner.embed(batch.images))
        if not isinstance(self.learner, Pairwise):
            features = functional.normalize(features, dim=-1) if self.normalise else centred(features)
            loss, active = pair_loss(features, batch.labels, self.margin, self.negatives)
            return Step(loss, {"active": active})
        positive, negative = same_class(batch.labels)
        scores = self.learner.compare(features, features)
        loss = functional.binary_cross_entropy_with_logits(scores, positive.to(scores), reduction="none")
        return Step((mean_where(loss, positive) + mean_where(loss, negative)) / 2, {})
