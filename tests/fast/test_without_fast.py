"""The package without its folder ``fast``: every module imports, and every method trains."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "metarep"
SCRIPT = """
import importlib, pkgutil, sys

import torch

import metarep

for module in pkgutil.walk_packages(metarep.__path__, "metarep."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert not [name for name in sys.modules if f"{name}.".startswith("metarep.fast.")]

from metarep import Preprocess, build_encoder
from metarep.data.split import Split
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.methods import METHODS
from metarep.experiments.training import TrainSettings, train

images = torch.randint(256, (300, 1, 16, 16), dtype=torch.uint8)
names = tuple(f"class {i}" for i in range(20))
split = Split(ImageBank(images), Labels(torch.arange(300) // 15, names, names), "noise")
for name, kind in METHODS.items():
    method = kind(build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,)), width=32))
    before = [parameter.clone() for parameter in method.learner.encoder.parameters()]
    small = {"steps": 2, "ways": 5, "shots": 2, "queries": 2, "tasks": 2, "images": 60, "augment": "views-drawings"}
    train(method, split, TrainSettings(**(kind.defaults | small)))
    after = list(method.learner.encoder.parameters())
    assert all(parameter.isfinite().all() for parameter in after), name
    assert not all(map(torch.equal, before, after)), name
    print(name)

try:
    maml = METHODS["maml"](build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,))))
    maml.learner.path = "stacked"
    train(maml, split, TrainSettings(steps=1, ways=5, shots=1, queries=1, tasks=1))
except metarep.errors.MetarepError as error:
    print(error)
"""


@pytest.mark.slow
def test_without_the_fast_folder_every_module_imports_and_every_method_trains(tmp_path: Path) -> None:
    left_out = shutil.ignore_patterns("fast", "__pycache__")
    shutil.copytree(SOURCE, tmp_path / "metarep", ignore=left_out)
    for leftover in ("c", "__pycache__"):  # as after a deletion by hand: a folder, and no package
        (tmp_path / "metarep" / "fast" / leftover).mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *names, message = done.stdout.splitlines()
    assert len(names) == 11
    assert message == "path 'stacked' needs the folder metarep/fast, which is missing here; take path auto"


def test_nothing_but_the_door_imports_the_fast_folder() -> None:
    outside = [path for path in SOURCE.rglob("*.py") if "fast" not in path.relative_to(SOURCE).parts[:1]]
    importing = [path.name for path in outside if re.search(r"metarep\.fast\b", _imports(path))]
    assert importing == [], "the door finds its functions by name"


def _imports(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.lstrip().startswith(("from ", "import ")))
