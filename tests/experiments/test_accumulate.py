"""Gradient accumulation: a step is taken on the mean gradient of several batches."""

import copy
from typing import Any

import pytest
import torch
from torch import Generator
from trainings import Drawings

from metarep.data.augment import preset
from metarep.data.batches import draw_batch
from metarep.encoders import Preprocess, build_encoder
from metarep.experiments.training import train
from metarep.methods import MoCo, build_method
from metarep.weights.settings import TrainSettings


@pytest.mark.slow
@pytest.mark.parametrize("name", ["protonet", "reptile", "moco"])
def test_accumulated_gradients_are_the_mean_over_batches(drawings: Drawings, name: str) -> None:
    encoder = build_encoder("conv4", Preprocess((20, 20), 1, (0.5,), (0.25,)), width=8)
    method = build_method(name, encoder, {})
    shape: dict[str, Any] = {"steps": 1, "ways": 5, "shots": 2, "queries": 2, "tasks": 2, "images": 16, "lr": 0.1}
    views = {"augment": "views-drawings"} if name == "moco" else {}
    settings = TrainSettings(**shape, **views, accumulate=3)
    method.optimizer = lambda lr, _: torch.optim.SGD(method.parameters(), lr)  # type: ignore[method-assign]
    twin, generator = copy.deepcopy(method).train(), Generator().manual_seed(settings.seed)
    train(method, drawings[0], settings)
    augment = preset(settings.augment)
    losses = []
    for _ in range(3):
        batch = draw_batch(twin.eats, drawings[0].bank, drawings[0].labels, settings.shape, augment, generator)
        losses.append(twin.step(batch, progress=0.0, generator=generator).loss)
    torch.stack(losses).mean().backward()
    lr = settings.lr_at(0)
    for trained, start in zip(method.parameters(), twin.parameters(), strict=True):
        expected = start if start.grad is None else start - lr * start.grad
        if start.requires_grad:
            assert torch.allclose(trained, expected, atol=1e-6)
    if isinstance(method, MoCo):
        assert int(method.queue.fill) == 48
