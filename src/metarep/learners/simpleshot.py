"""SimpleShot: nearest class mean after the mean of the training features is subtracted."""

from typing import Any

from metarep.encoders import Encoder
from metarep.learners.learner import Metric
from metarep.learners.prototypes import Prototypes


class SimpleShot(Prototypes):
    """The nearest class mean of centred features on the unit sphere (CL2N).

    Wang, Chao, Weinberger, van der Maaten, SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot
    Learning, 2019. The mean that is subtracted is that of the training images, and never that of the task: so it is
    inductive, and works for one image a class. It is kept with the encoder (:attr:`Encoder.feature_means`). Unlike in
    the paper, features have length 1 before the mean is subtracted too, and classes are compared by cosine; both were
    better here.

    Args:
        encoder: the representation. It must keep the mean.
        metric: ``cosine``, or ``euclidean`` as in the paper. They agree for one image a class.
        temperature: divides the logits.
        power: exponent for the absolute value of each feature, 1 or 0.5, which comes first: a power transform.

    Raises:
        MetarepError: the encoder keeps no mean, or a setting is invalid.

    >>> import torch
    >>> from metarep.encoders import Preprocess
    >>> encoder = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> encoder.feature_means = torch.tensor([[0.6, 0.8], [0.7, 0.7]])
    >>> learner = SimpleShot(encoder, temperature=1.0)
    >>> state = learner.adapt(torch.tensor([[[4.0, 3.0], [0.0, 1.0]]]), torch.tensor([[0, 1]]), ways=2)
    >>> learner.logits(state, torch.tensor([[[2.0, 0.0]]])).argmax().item()
    0
    """

    def __init__(
        self, encoder: Encoder, metric: Metric = "cosine", temperature: float = 0.1, *, power: float = 1.0
    ) -> None:
        super().__init__(encoder, metric, temperature, power=power, centre=True)

    @property
    def settings(self) -> dict[str, Any]:
        return {"metric": self.metric, "temperature": self.temperature, "power": self.power}
