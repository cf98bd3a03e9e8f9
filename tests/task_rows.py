"""Rows of features of made-up tasks, for the tests of learners."""

import torch
from torch import Generator, Tensor, nn

from metarep.encoders import Encoder, Preprocess
from metarep.learners import Learner

DIM = 6
UNEVEN = [0, 1, 1, 2, 2, 2, 0, 2, 2]  # labels of a support set: 2, 2 and 5 images a class


def pixels() -> Encoder:
    """The pixels themselves: the tests below give rows of features straight to ``adapt``."""
    encoder = Encoder(nn.Flatten(), Preprocess((2, 3), 1, (0.0,), (1.0,)))
    encoder.feature_means = torch.linspace(-0.1, 0.2, 2 * DIM).view(2, DIM)
    return encoder


def rows_of(seed: int = 0, tasks: int = 4, labels: list[int] = UNEVEN, ways: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Support rows near a centre of their class, their labels (each task in its own order), and query rows."""
    g = Generator().manual_seed(seed)
    y = torch.stack([torch.tensor(labels)[torch.randperm(len(labels), generator=g)] for _ in range(tasks)])
    centres = torch.randn(tasks, ways, DIM, generator=g, dtype=torch.float64)
    near = centres.gather(1, y.unsqueeze(-1).expand(-1, -1, DIM))
    support = near + 0.5 * torch.randn(near.shape, generator=g, dtype=torch.float64)
    return support, y, torch.randn(tasks, 7, DIM, generator=g, dtype=torch.float64)


def solve(learner: Learner, support: Tensor, y: Tensor, query: Tensor, ways: int = 3) -> Tensor:
    return learner.logits(learner.adapt(support, y, ways), query)
