"""Validation tasks: classes that are too small are left out with a warning, and the shots are those of the training."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from folders import fill

from metarep.cli import main
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.tasks import SmallClassWarning
from metarep.encoders import Encoder
from metarep.experiments.job import Job, train_settings
from metarep.experiments.recipes import load_recipe, recipe_names
from metarep.experiments.training import train
from metarep.experiments.validation import validation_shots, validation_tasks
from metarep.learners import Prototypes
from metarep.methods import ProtoNet, Siamese
from metarep.weights.settings import TrainSettings

Make = Callable[..., Encoder]


SAMPLES = ("siamese", "triplet", "baseline", "supcon")  # their batches have images of classes, which are not shots


def split_of(*counts: int, groups: torch.Tensor | None = None) -> Split:
    classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    names = tuple("abcdefgh"[: len(counts)])
    bank = ImageBank(torch.zeros(len(classes), 1, 8, 8, dtype=torch.uint8))
    return Split(bank, Labels(classes, names, names, groups), "mine/val")


@pytest.mark.parametrize(
    ("split", "shots", "text", "shape"),
    [
        (split_of(9, 9, 9), 1, "", (3, 1, 5)),
        (split_of(9, 1, 9), 1, "1 of the 3 classes is left out of validation on mine/val.*'b' has 1$", (2, 1, 5)),
        (split_of(9, 3, 9), 5, "1 of the 3 classes is left out.*'b' has 3$", (2, 5, 4)),
        (
            split_of(3, 3, 3),
            5,
            "on 2-shot tasks, not 5-shot, for which 0 of the 3 classes of mine/val are lar",
            (3, 2, 1),
        ),
        (
            split_of(6, 6, 9),
            6,
            "on 5-shot tasks, not 6-shot, for which 1 of the 3 classes of mine/val is larg",
            (3, 5, 1),
        ),
        (split_of(9, 1, 1), 1, "the last weights are kept: 2-way 1-shot tasks need 2 classes.* has 1$", None),
        (split_of(1, 1), 1, "nothing to validate on", None),
        (
            split_of(4, 4, 4, groups=torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 2, 3])),
            1,
            r"'a' has 4, of 1 group; support and query",
            (2, 1, 2),
        ),
    ],
)
def test_small_classes_are_left_out_of_validation_with_a_warning(
    split: Split, shots: int, text: str, shape: tuple[int, int, int] | None, small_encoder: Make
) -> None:
    settings = TrainSettings(ways=3, shots=shots, validation_tasks=3)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        tasks = validation_tasks(split, settings, Prototypes(small_encoder()), ProtoNet.eats)
    if text:
        assert warned
        for each in warned:
            assert each.category is SmallClassWarning
        assert re.search(text, str(warned[0].message)), warned[0].message
    else:
        assert not warned
    if shape is not None:
        assert tasks is not None
        assert (tasks.ways, tasks.shots, tasks.queries) == shape


@pytest.mark.parametrize("method", ["protonet", "baseline", "siamese"])
def test_a_training_that_cannot_be_tells_nothing_of_what_it_would_have_done(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("few"), "abcdefgh", 2)
    shape = ["--shots", "5", "--ways", "2", "--steps", "1"]
    assert main(["train", method, "--data", "folder:few", *shape, "--out", "run"]) == 2
    said = capsys.readouterr().err.splitlines()
    need = (
        "2-way 5-shot tasks with 5 queries need 2 classes of at least 10" if method == "protonet" else "batches with 5"
    )
    assert len(said) == 1
    assert said[0].startswith(f"metarep: {need}")
    assert "0 of the 5 classes have as many" in said[0]


def test_validation_has_the_shots_that_are_trained(drawings: tuple[Split, Split], small_encoder: Make) -> None:
    assert validation_shots(TrainSettings(shots=5), ProtoNet.eats) == 5
    assert validation_shots(TrainSettings(shots=4), Siamese.eats) == 1, "images of a class in a batch are not shots"
    assert validation_shots(TrainSettings(shots=5, validation_shots=2), ProtoNet.eats) == 2
    assert train_settings(Job("reptile"), drawings[0]).validation_shots == 5
    assert train_settings(Job("protonet"), drawings[0]).validation_shots == 1
    small = TrainSettings(steps=1, ways=4, shots=3, queries=2, validation_tasks=3)
    outcome = train(ProtoNet(small_encoder()), drawings[0], small, validation=drawings[1])
    assert outcome.validated_on == "20-way 3-shot"
    for name in recipe_names():  # recipes that were chosen on 1-shot tasks still are
        job = Job(load_recipe(name).method, **load_recipe(name).job)
        assert job.train_settings.validation_shots or job.train_settings.shots == 1 or job.method in SAMPLES, name
