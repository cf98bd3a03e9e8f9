"""MoCo: find the other view of an image among a queue of keys from past batches."""

from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.batch import Batch, ViewBatch
from metarep.encoders import Encoder
from metarep.errors import MetarepError, one_of
from metarep.learners.prototypes import Prototypes
from metarep.machine.ranks import Part
from metarep.methods.contrastive import (
    KeyQueue,
    Projector,
    check_groups,
    encode_blocks,
    encode_strides,
    follow,
    frozen_copy,
    gauge,
    info_nce,
)
from metarep.methods.method import Method, Step


class MoCo(Method[ViewBatch]):
    """MoCo: contrast views with a queue of keys from a momentum encoder; no labels.

    He, Fan, Wu, Xie, Girshick, Momentum Contrast for Unsupervised Visual Representation Learning, 2020 (v1: ``head
    linear``, ``temperature 0.07``); Chen, Fan, Girshick, He, Improved Baselines with Momentum Contrastive Learning,
    2020 (v2: ``head mlp``, ``temperature 0.2``, the default). Traps: a query and its key that are normalised in one
    batch can be matched by the batch statistics alone, so ``norm_groups`` separates them. A queue that is long against
    the data set holds keys of a much older encoder.

    Args:
        encoder: the representation to train.
        temperature: divides the cosines; 0.07 in v1, 0.2 in v2.
        momentum: share of its weights that the momentum encoder keeps at a step; the papers have 0.999, which is too
            slow for short trainings.
        queue: number of keys of past batches that are negatives; 65536 in the papers, at most a quarter of the images
            here.
        head: projection head: linear (v1), mlp (one hidden layer without norm, v2), or mlp-norm (with norm).
        hidden: units of the mlp's hidden layer.
        outputs: length of a key.
        symmetric: use each view as the query once, and not only the first.
        norm_groups: groups of a batch that are normalised separately, with other groups for queries than for keys; 1
            normalises the whole batch, which leaks the pairs.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,)), width=4)
    >>> method = MoCo(encoder, momentum=0.9, queue=3, outputs=2)
    >>> weight, slow = next(encoder.parameters()), next(method.target.parameters())
    >>> weight.data += 1.0  # as a step of the optimiser would
    >>> method.after_step(carry=torch.eye(2), progress=0.0)  # two keys
    >>> round((weight - slow).mean().item(), 3), method.queue.valid.tolist()
    (0.9, [True, True, False])
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
        """InfoNCE of queries, keys and the queue; the log has spread and rank, and ``carry`` the new keys."""
        check_groups(self.norm_groups, len(batch.rows))
        before = Part.own(len(batch.rows)).start
        pairs = [(batch.images, batch.second), (batch.second, batch.images)]
        losses, keys, logs = [], [], {}
        for query_view, key_view in pairs if self.symmetric else pairs[:1]:
            key = functional.normalize(encode_strides(self.target, key_view, self.norm_groups, before), dim=-1)
            features = encode_blocks(self.learner.embed, query_view, self.norm_groups)
            query = functional.normalize(encode_blocks(self.projector, features, self.norm_groups), dim=-1)
            losses.append(info_nce(query, key, self.queue.keys, self.temperature, self.queue.valid))
            keys.append(batch.whole(key))
            logs = logs or gauge(*(batch.whole(rows.detach()) for rows in (features, query)))
        return Step(torch.stack(losses).mean(), logs, torch.cat(keys))

    def after_step(self, carry: Tensor, progress: float) -> None:  # noqa: ARG002
        """Move the momentum encoder towards the encoder, then add the keys of this batch to the queue.

        They are added only now, so that no key was a negative of its own query.
        """
        follow(self.target, nn.Sequential(self.learner.encoder, self.projector), self.momentum)
        self.queue.enqueue(carry)
