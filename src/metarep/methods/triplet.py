"""Triplet networks: learn that an image is nearer to its own class than to another class."""

from typing import Any, ClassVar, get_args

from torch import Generator
from torch.nn import functional

from metarep.data.batch import Batch, LabelledBatch
from metarep.encoders import Encoder
from metarep.errors import above, one_of
from metarep.learners.prototypes import Prototypes
from metarep.methods.losses import Mining, centred, triplet_loss
from metarep.methods.method import Method, Step


class Triplet(Method[LabelledBatch]):
    """Triplet networks: the triplet loss, with triplets mined inside the batch.

    Schroff, Kalenichenko, Philbin, FaceNet, 2015; Hermans, Beyer, Leibe, In Defense of the Triplet Loss, 2017. Trap:
    ``batch-hard`` with a high learning rate from the first step collapses to one point, and the loss then stays exactly
    at the margin. Start with a warm-up, ``semi-hard`` or a soft margin, and watch ``active`` in the log.

    Args:
        encoder: the representation to train.
        margin: in units of the distance; ``none`` for the soft margin ``log(1 + exp(d_positive - d_negative))``.
        mining: which triplets of the batch count.
        squared: squared distances (FaceNet) or plain ones (Hermans).
        normalise: put features on the unit sphere (FaceNet) or not (Hermans).

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))
    >>> Triplet(encoder).learner.metric, Triplet(encoder, normalise=False).learner.metric
    ('cosine', 'euclidean')
    """

    eats: ClassVar[type[Batch]] = LabelledBatch
    family: ClassVar[str] = "metric"
    paper: ClassVar[str] = "Schroff et al. 2015; Hermans et al. 2017"
    spans_batch: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {"ways": 64, "shots": 4}

    def __init__(
        self,
        encoder: Encoder,
        *,
        margin: float | None = 0.2,
        mining: Mining = "semi-hard",
        squared: bool = False,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        one_of("mining", mining, get_args(Mining))
        if margin is not None:
            above("margin", margin)
        self.margin, self.squared, self.normalise = margin, squared, normalise
        self.mining: Mining = mining
        self.learner = Prototypes(encoder, "cosine", temperature=0.1) if normalise else Prototypes(encoder, "euclidean")

    def step(self, batch: LabelledBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """The triplet loss of a batch; ``active`` in the log is the share of mined triplets that have a loss."""
        features = batch.whole(self.learner.embed(batch.images))
        features = functional.normalize(features, dim=-1) if self.normalise else centred(features)
        loss, active = triplet_loss(
            features, batch.labels, margin=self.margin, mining=self.mining, squared=self.squared
        )
        return Step(loss, {"active": active})
