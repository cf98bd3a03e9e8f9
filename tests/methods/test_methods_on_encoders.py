"""Every method on the larger encoders: a small ViT, and EfficientNet-Lite as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from thinning import few
from torch import Generator

from metarep.data.augment import preset
from metarep.data.batches import BatchShape, LabelledViewBatch, TaskBatch, ViewBatch, draw_batch
from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.methods import METHODS, Method, build_method
from metarep.weights.checkpoint import load_checkpoint, save_checkpoint
from metarep.weights.record import RunRecord

OWN: dict[str, dict[str, Any]] = {
    "maml": {"ways": 3, "inner_steps": 1, "test_steps": 1, "inner_lr": 0.01},
    "anil": {"ways": 3, "inner_lr": 0.01},
    "reptile": {"ways": 3, "inner_steps": 2, "test_steps": 2},
    "baseline": {"classes": 40},
    "moco": {"queue": 32},
}
SMALL: dict[str, Callable[[], Encoder]] = {
    "vit": lambda: build_encoder("vit", ONE, width=16, depth=2, heads=2, patch=5, features="both"),
    "vit, rope, registers": lambda: build_encoder(
        "vit", ONE, width=16, depth=1, heads=2, patch=5, positions="rope", registers=2, layer_scale=0.5
    ),
    "efficientnet-lite": lambda: build_encoder("efficientnet-lite", THREE, mirror=True),
}
ONE = Preprocess((20, 20), 1, (0.0,), (1.0,), invert=True)
THREE = Preprocess((20, 20), 3, (0.5,) * 3, (0.5,) * 3)
CASES = [f"{method} on {encoder}" for encoder in SMALL for method in METHODS]


def made(method: str, encoder: str) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method(method, SMALL[encoder](), OWN.get(method, {}))


@pytest.mark.parametrize("case", few(CASES, 12))
def test_a_method_trains_and_keeps_it(case: str, drawings: tuple[Split, Split], tmp_path: Path) -> None:
    """The loss reaches every weight, a step lowers nothing to NaN, and a checkpoint gives equal logits."""
    name, _, encoder = case.partition(" on ")
    method, split = made(name, encoder).train(), drawings[0]
    shape = BatchShape(ways=3, shots=2, queries=1, tasks=1, images=8)
    augment = preset("views-drawings") if method.eats in (ViewBatch, LabelledViewBatch) else None
    batch = draw_batch(method.eats, split.bank, split.labels, shape, augment, Generator().manual_seed(0))
    step = method.step(batch, progress=0.0, generator=Generator())
    assert step.loss.isfinite()
    optimizer = method.optimizer(1e-3, 0.0)
    step.loss.backward()
    learned = [parameter for parameter in method.learner.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in learned)
    optimizer.step()
    method.after_step(step.carry, 0.0)
    save_checkpoint(tmp_path / "model.safetensors", method, RunRecord(name, OWN.get(name, {})), ["aaa"])
    again = load_checkpoint(tmp_path / "model.safetensors").learner
    assert again.encoder.arch == method.learner.encoder.arch
    tasks = draw_tasks(drawings[1].labels, 1, ways=3, shots=1, queries=1, generator=Generator().manual_seed(0))
    index, tasks = tasks.compact()
    logits = []
    for learner in (method.eval().learner, again):
        with torch.no_grad():
            support, y, query, _, ways = tasks.of(learner.prepare(drawings[1].bank.pixels(index)))
            logits.append(learner.logits(learner.adapt(support, y, ways), query))
    assert torch.equal(*logits)
    assert method.eats is not TaskBatch or logits[0].shape == (1, 3, 3)
