"""MoCo: find the other view of an image among the keys of past batches."""

from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.batches import Batch, ViewBatch
from metarep.contrastive import KeyQueue, Projector, encode_blocks, encode_strides, follow, frozen_copy, gauge, info_nce
from metarep.encoders import Encoder
from metarep.errors import MetarepError, one_of
from metarep.learners.prototypes import Prototypes
from metarep.methods.method import Method, Step


class MoCo(Method[ViewBatch]):
    """MoCo: contrast views with a queue of keys from an encoder that follows the trained one; no labels.

    He, Fan, Wu, Xie, Girshick, Momentum Contrast for Unsupervised Visual Representation Learning, 2020 (v1: ``head
    linear``, ``temperature 0.07``); Chen, Fan, Girshick, He, Improved Baselines with Momentum Contrastive Learning,
    2020 (v2: ``head mlp``, ``temperature 0.2``, the default). Traps: a query and its key in one batch of normalisation
    find each other by its statistics, hence ``norm_groups``; a queue that is long against the data holds stale keys.

    Args:
        encoder: the representation to train.
        temperature: divides the cosines; 0.07 in v1, 0.2 in v2.
        momentum: share of its weights that the key encoder keeps at a step; 0.999 in the papers, too slow for short
            trainings.
        queue: keys of past batches that serve as negatives; 65536 in the papers, at most a quarter of the images here.
        head: what projects features: linear (v1), mlp with one hidden layer and no norm (v2), or mlp-norm with one.
        hidden: units of the mlp's hidden layer.
        outputs: length of a key.
        symmetric: let each view ask for the other, not only the first for the second.
        norm_groups: parts of a batch that are normalised each by itself, other ones for queries than for keys; 1 for
            the whole batch, which leaks.
    """

    eats: ClassVar[type[Batch]] = ViewBatch
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "He et al. 2020; Chen et al. 2020"
    defaults: ClassVar[dict[str, Any]] = {"images": 256, "steps": 1000}
    target: nn.Sequential

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        momentum: float = 0.99,
        queue: int = 4096,
        head: Literal["linear", "mlp", "mlp-norm"] = "mlp",
        hidden: int = 512,
        outputs: int = 128,
        symmetric: bool = False,
        norm_groups: int = 4,
    ) -> None:
        super().__init__()
        one_of("head", head, ("linear", "mlp", "mlp-norm"))
        if not temperature > 0:
            raise MetarepError(f"temperature must be above 0, not {temperature}")
        if not 0 <= momentum <= 1:
            raise MetarepError(f"momentum is a share of the weights, 0 to 1, not {momentum}")
        if norm_groups < 1:
            raise MetarepError(f"norm_groups must be at least 1, not {norm_groups}")
        self.temperature, self.momentum = temperature, momentum
        self.symmetric, self.norm_groups = symmetric, norm_groups
        self.learner = Prototypes(encoder, "cosine", temperature=0.1)
        self.projector = Projector(
            encoder.dim, outputs, hidden=0 if head == "linear" else hidden, norm=head == "mlp-norm"
        )
        self.target = frozen_copy(nn.Sequential(encoder, self.projector))
        self.queue = KeyQueue(queue, outputs)

    def step(self, batch: ViewBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        pairs = [(batch.images, batch.second), (batch.second, batch.images)]
        losses, keys, logs = [], [], {}
        for asking, asked in pairs if self.symmetric else pairs[:1]:
            key = functional.normalize(encode_strides(self.target, asked, self.norm_groups), dim=-1)
            features = encode_blocks(self.learner.embed, asking, self.norm_groups)
            query = functional.normalize(encode_blocks(self.projector, features, self.norm_groups), dim=-1)
            losses.append(info_nce(query, key, self.queue.keys, self.temperature, self.queue.valid))
            keys.append(key)
            logs = logs or gauge(features, query)
        return Step(torch.stack(losses).mean(), logs, torch.cat(keys))

    def after_step(self, carry: Tensor, progress: float) -> None:  # noqa: ARG002
        """The key encoder follows, and only now are this batch's keys queued: none was among its own negatives."""
        follow(self.target, nn.Sequential(self.learner.encoder, self.projector), self.momentum)
        self.queue.enqueue(carry)
