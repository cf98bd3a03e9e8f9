"""BYOL: predict the projection that a slowly moving copy of the network gives for the other view."""

import math
from typing import Any, ClassVar

import torch
from torch import Generator, nn

from metarep.data.batch import Batch, ViewBatch
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.learners.prototypes import Prototypes
from metarep.methods.contrastive import Projector, follow, frozen_copy, gauge, negative_cosine
from metarep.methods.method import Method, Step


class BYOL(Method[ViewBatch]):
    """BYOL: predict a target network's projection of the other view; no labels and no negatives.

    Grill et al., Bootstrap Your Own Latent, 2020. Each of the two views is a batch of its own. The online encoder is
    deployed. Trap: the loss itself allows that all images become one point (collapse). Batch normalisation in projector
    and predictor, the slow target and a low learning rate prevent it. Watch ``spread`` in the log.

    Args:
        encoder: the representation to train.
        tau: share of its weights that the target keeps at the first step; it rises along a cosine to 1 at the end.
            The paper has 0.996, which is too slow for short trainings.
        hidden: units of projector and predictor; 4096 in the paper.
        outputs: length of a projection; 256 in the paper.

    >>> from metarep import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,)), width=4)
    >>> method = BYOL(encoder, tau=0.9)
    >>> weight, slow = next(encoder.parameters()), next(method.target.parameters())
    >>> weight.data += 1.0  # as a step of the optimiser would
    >>> method.after_step(carry=None, progress=0.0)
    >>> round((weight - slow).mean().item(), 3)  # the target moves a tenth of the way
    0.9
    """

    eats: ClassVar[type[Batch]] = ViewBatch
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Grill et al. 2020"
    defaults: ClassVar[dict[str, Any]] = {"images": 256, "steps": 1000, "lr": 1e-3}
    target: nn.Sequential

    def __init__(self, encoder: Encoder, *, tau: float = 0.99, hidden: int = 512, outputs: int = 128) -> None:
        super().__init__()
        if not 0 <= tau <= 1:
            raise MetarepError(f"tau is a share of the weights, 0 to 1, not {tau}")
        if hidden < 1:
            raise MetarepError(
                f"hidden must be at least 1, not {hidden}: BYOL collapses without the hidden layer's norm"
            )
        self.tau = tau
        self.learner = Prototypes(encoder, "cosine", temperature=0.1)
        # The batch norm of the predictor follows the projector, so a bias would cancel out.
        self.projector = Projector(encoder.dim, outputs, hidden=hidden, bias=False)
        self.predictor = Projector(outputs, outputs, hidden=hidden)
        self.target = frozen_copy(nn.Sequential(encoder, self.projector))

    def step(self, batch: ViewBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """The sum over both directions of ``2 - 2 cos`` between prediction and target; the log has spread and rank."""
        features = [self.learner.embed(view) for view in (batch.images, batch.second)]
        projected = [self.projector(each) for each in features]
        with torch.no_grad():
            targets = [self.target(view) for view in (batch.second, batch.images)]
        losses = [negative_cosine(self.predictor(p), target) for p, target in zip(projected, targets, strict=True)]
        return Step(losses[0] + losses[1], gauge(*(batch.whole(rows[0].detach()) for rows in (features, projected))))

    def after_step(self, carry: None, progress: float) -> None:  # noqa: ARG002
        """Move the target network towards the online network."""
        follow(self.target, nn.Sequential(self.learner.encoder, self.projector), tau_at(self.tau, progress))


def tau_at(start: float, progress: float) -> float:
    """The share of its weights that the target keeps; it rises along a cosine from ``start`` to 1.

    ``1 - (1 - start) * (cos(pi * progress) + 1) / 2``

    >>> [round(tau_at(0.9, progress), 4) for progress in (0, 0.5, 1)]
    [0.9, 0.95, 1.0]
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
