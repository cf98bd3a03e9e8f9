"""Every method trains a small vision transformer on glyphs, above the same transformer with random weights."""

from pathlib import Path

import pytest

from metarep.data.datasets import load_dataset
from metarep.experiments.job import Job
from metarep.experiments.measurement.measure import Setting, measure_all
from metarep.experiments.start import start
from metarep.methods import METHODS

pytestmark = pytest.mark.proof
VIT = {"name": "vit", "width": 48, "depth": 2, "heads": 3, "patch": 7, "features": "mean"}
SHARED = {"lr": 1e-3, "validate_every": 10_000}
TRAIN = {
    "maml": {"steps": 400, "ways": 5, "shots": 1, "queries": 5, "tasks": 2},
    "anil": {"steps": 300, "ways": 5, "shots": 1, "queries": 5, "tasks": 4},
    "reptile": {"steps": 150, "ways": 5, "shots": 5, "queries": 5, "tasks": 2},
    "simclr": {"steps": 300, "images": 128},
    "moco": {"steps": 300, "images": 128},
    "byol": {"steps": 500, "images": 128},
}
SETTINGS = {"moco": {"queue": 1024}, "maml": {"head": "prototype", "inner_lr": 0.05}, "reptile": {"head": "prototype"}}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_trains_a_transformer_above_its_start(method: str, tmp_path: Path) -> None:
    train = SHARED | TRAIN.get(method, {"steps": 300, "ways": 20})
    job = Job(method, SETTINGS.get(method, {}), train, encoder=VIT)
    trained, _ = start(job, tmp_path, device="cpu")
    shots = 1 if method != "reptile" else 5
    setting = Setting(range(5, 6), range(shots, shots + 1), 10, 600, 1)
    rows = dict(measure_all(trained.learner.eval(), load_dataset("glyphs", "test"), [setting], references=True))
    after, before = rows["trained"], rows["untrained encoder"]
    assert after.accuracy - after.ci95 > before.accuracy + before.ci95, f"{after}\n{before}"
