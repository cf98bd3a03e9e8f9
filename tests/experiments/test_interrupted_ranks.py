"""A training on two processes is interrupted between validations, and resumed bit for bit."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.ranks import run_ranks
from torch import Generator, Tensor
from trainings import PulledError

from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.encoders import Preprocess, build_encoder
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training import train
from metarep.methods import METHODS, build_method
from metarep.weights.record import RunRecord
from metarep.weights.settings import TrainSettings

CASES: dict[str, dict[str, Any]] = {  # whose running statistics differ between processes until a validation
    "moco": {"augment": "views-drawings", "images": 16},
    "protonet": {"statistics": "per-process", "ways": 4, "shots": 2, "queries": 2},
}


def weights(name: str, path: Path, *stops: int) -> list[Tensor]:
    """The weights and buffers of this process after a training that was interrupted after these steps."""
    settings = TrainSettings(steps=9, save_every=2, validate_every=6, **CASES[name])
    generator = Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 1, 16, 16), dtype=torch.uint8, generator=generator)
    split = Split(ImageBank(pixels), Labels.of([i // 10 for i in range(60)]), "noise")
    for stop in (*stops, None):
        torch.manual_seed(0)
        body = build_encoder("conv4", Preprocess((16, 16), 1, (0.5,), (0.25,)), width=8)
        method = build_method(name, body, {})
        done, after = iter(range(1, 100)), method.after_step

        def pulled(*more: Any, stop: int | None = stop, done: Any = done, after: Any = after) -> None:
            after(*more)
            if next(done) == stop:
                raise PulledError

        method.after_step = pulled  # type: ignore[method-assign]
        try:
            train(method, split, settings, run=RunFolder(path / name, RunRecord(name, train=settings), ["a"]))
        except PulledError:
            continue
        return [tensor.detach() for tensor in (*method.parameters(), *method.buffers())]
    raise AssertionError


def whole_and_pieces(path: str) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    home = Path(path)
    return {name: (weights(name, home / "whole"), weights(name, home / "pieces", 3, 3)) for name in CASES}


@pytest.mark.slow
def test_a_resumed_training_on_two_processes_is_the_uninterrupted_one() -> None:
    assert set(CASES) <= set(METHODS)
    with tempfile.TemporaryDirectory() as folder:
        for rank in run_ranks(2, whole_and_pieces, folder):
            for name, (whole, pieces) in rank.items():
                assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True)), name
