"""The collapse gauge: what it measures, and what a training does when all images have become one point."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contrasting import SMALL, VIEWS, make, views
from torch import Generator
from torch.nn import functional

from metarep.cli.progress import _figures
from metarep.data.split import Split
from metarep.encoders import Encoder
from metarep.experiments.readings import CollapsedError, CollapseWarning
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training import train
from metarep.machine.files import read_tensors
from metarep.methods import SimCLR
from metarep.methods.contrastive import COLLAPSED, effective_rank, spread
from metarep.weights.record import RunRecord
from metarep.weights.settings import TrainSettings

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]
LOOP = sys.modules[train.__module__]


def test_the_gauge_distinguishes_a_point_a_line_and_a_sphere() -> None:
    sphere = torch.randn(4000, 16, generator=Generator().manual_seed(0))
    point = torch.ones(4000, 16) + 1e-4 * sphere
    line = torch.outer(sphere[:, 0], torch.ones(16))
    assert spread(sphere).item() == pytest.approx(1, abs=0.01)
    assert spread(point) < 0.001 < COLLAPSED
    assert spread(torch.ones(8, 4)) == 0
    assert spread(torch.zeros(8, 4)) == 0
    assert effective_rank(sphere).item() == pytest.approx(16, abs=0.2)
    assert effective_rank(line).item() == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.ones(8, 4)) == 0
    assert spread(1000 * sphere) == pytest.approx(spread(sphere).item())
    few = sphere[:10]  # fewer rows than dimensions: the other product of matrices
    unit = functional.normalize(few.double(), dim=1)
    covariance = torch.cov(unit.T, correction=0)
    values = torch.linalg.eigvalsh(covariance)
    assert effective_rank(few).item() == pytest.approx((values.sum() ** 2 / values.square().sum()).item(), rel=1e-4)
    assert spread(few).item() == pytest.approx(values.sum().sqrt().item(), rel=1e-5)


@pytest.mark.parametrize("name", VIEWS)
def test_every_step_logs_the_spread_of_features(name: str, drawings: Drawings, small_encoder: Make) -> None:
    logs = make(name, small_encoder()).step(views(drawings[0]), progress=0.0, generator=Generator()).logs
    assert set(logs) == {"spread", "rank"}
    assert COLLAPSED < logs["spread"] < 1.01
    assert 1 < logs["rank"] < 16
    assert "spread 0.50  rank 3.2" in _figures({"loss": 1.0, "spread": 0.5, "rank": 3.21})


class Collapsing(SimCLR):
    """Its projector forgets everything after a few steps."""

    def after_step(self, carry: Any, progress: float) -> None:
        if progress >= 0.3:
            with torch.no_grad():
                self.projector[-1].weight.zero_()


def test_a_collapse_is_reported_once_and_stops_on_request(
    drawings: Drawings, small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOOP, "LOG_EVERY", 1)
    said = r"collapsed to one point at step 4: .* 0\.0\d\d of 1.*stop_on_collapse=True"
    with pytest.warns(CollapseWarning, match=said) as told:
        train(Collapsing(small_encoder(), hidden=16, outputs=8), drawings[0], TrainSettings(**SMALL))
    assert len(told) == 1
    settings, steps = TrainSettings(**SMALL, stop_on_collapse=True), []
    run = RunFolder(tmp_path, RunRecord("simclr", train=settings), [])
    with pytest.raises(CollapsedError, match=r"at step 4: .*last good state is in"):
        train(
            Collapsing(small_encoder(), hidden=16, outputs=8), drawings[0], settings,
            run=run, watch=lambda record: steps.append(record["step"]),
        )  # fmt: skip
    assert steps == [1, 2, 3, 4]
    assert read_tensors(tmp_path / "state.safetensors")[1]["step"] == 2
