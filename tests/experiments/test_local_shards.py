"""Two processes, of which each holds its own classes, train as one process does on the same batches."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments.test_ranks import SHAPE, TOLERANCE, build, exact, images, ten_steps
from ranks import run_ranks
from torch import Generator, Tensor

from metarep.data.augment import preset
from metarep.data.banks.mapped import MappedImages
from metarep.data.banks.writer import BankWriter
from metarep.data.batch import Views
from metarep.data.batches import draw_batch
from metarep.data.datasets import load_dataset
from metarep.data.images import ImageBank
from metarep.data.strata import Strata
from metarep.encoders import keep_feature_means
from metarep.encoders.normalisation import synchronised
from metarep.errors import MetarepError
from metarep.experiments.job import Job
from metarep.experiments.start import start
from metarep.machine.randomness import hand_over
from metarep.machine.ranks import average_gradients, rank, ranks
from metarep.methods import METHODS
from metarep.weights.settings import TrainSettings

RANKS, IMAGES = 2, 120
TRAINED = ("protonet", "maml", "simclr", "baseline")
BOTH = replace(SHAPE, ways=6, tasks=4)


class Watched(ImageBank):
    """A bank that has only the rows of this process."""

    def pixels(self, index: Tensor) -> Tensor:
        half = IMAGES // ranks()
        assert ((index >= rank() * half) & (index < (rank() + 1) * half)).all(), "an image of another process is read"
        return super().pixels(index)

    def between(self, start: int, stop: int) -> ImageBank:
        assert stop - start == IMAGES // ranks()
        return super().between(start, stop)

    @property
    def images(self) -> Tensor:
        raise AssertionError("all images are read")


def gradients(name: str, tasks: int) -> list[Tensor]:
    """The gradients of a step, on a batch that is drawn for two processes."""
    split = images()
    split = split._replace(bank=Watched(split.bank.stored)).local(RANKS)
    method, generator = build(name, "conv4", torch.float64, BOTH.ways).train(), Generator().manual_seed(1)
    augment = preset("views-drawings") if issubclass(method.eats, Views) else None
    strata, spans, shape = Strata.of(split.labels, RANKS), method.spans_batch, replace(BOTH, tasks=tasks)
    batch = draw_batch(method.eats, split.bank, split.labels, shape, augment, generator, spans=spans, strata=strata)
    batch = exact(batch, torch.float64)
    hand_over(generator, method, (batch.own, len(batch.rows)) if spans else None)
    with synchronised():
        step = method.step(batch, progress=0.0, generator=generator)
    (step.loss * batch.weight).backward()
    average_gradients(method)
    return [p.grad for p in method.parameters() if p.grad is not None]


def all_gradients() -> dict[tuple[str, int], list[Tensor]]:
    cases = [(name, 4) for name in METHODS] + [
        (name, 1) for name in ("protonet", "anil")
    ]  # one task, which has classes of both
    return {case: gradients(*case) for case in cases}


def trained(name: str) -> list[Tensor]:
    """The weights after ten steps."""
    split = images()
    split = split._replace(bank=Watched(split.bank.stored))
    return ten_steps(name, split, local_shards=RANKS, ways=BOTH.ways, tasks=BOTH.tasks)


def from_a_bank(folder: str) -> dict[str, Any]:
    """What a run folder says after a training on a prepared bank, of which other processes' images are never read."""
    taken = MappedImages.pixels

    def watched(self: MappedImages, rows: Tensor, *, pinned: bool = False) -> Tensor:
        found = taken(self, rows, pinned=pinned)
        if self.shape[0] <= IMAGES:  # and not the classes of validation, which all share
            half = found.flatten(1).float().mean(1) > 127  # those of the second process are light
            assert ranks() == 1 or (half == bool(rank())).all(), "an image of another process is read"
        return found

    MappedImages.pixels = watched  # type: ignore[method-assign]
    settings = {"steps": 4, "local_shards": RANKS, "ways": 4, "validation_tasks": 4, "validation_ways": 2}
    try:
        checkpoint, _ = start(Job("protonet", {}, settings, data=f"bank:{folder}/bank"), Path(folder, f"run{ranks()}"))
    finally:
        MappedImages.pixels = taken  # type: ignore[method-assign]
    encoder = checkpoint.learner.encoder
    means = encoder.feature_means
    assert means is not None
    keep_feature_means(encoder, load_dataset(f"bank:{folder}/bank", "train").bank)
    assert encoder.feature_means is not None
    assert torch.allclose(means, encoder.feature_means, atol=1e-6)  # of all images, by two processes and by one
    return {"preprocess": encoder.preprocess, "weights": list(encoder.parameters())}


def everything(folder: str) -> dict[str, Any]:
    refused = ""
    try:
        images().local(3)
    except MetarepError as error:
        refused = str(error)
    return {
        "gradients": all_gradients(),
        "weights": {name: trained(name) for name in TRAINED},
        "bank": from_a_bank(folder),
        "refused": refused,
    }


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bank of several shards; the images of the second half of the classes are lighter."""
    monkeypatch.setattr("metarep.data.banks.writer.SHARD", 1 << 14)
    dice, folder = Generator().manual_seed(0), tmp_path
    with BankWriter(folder / "bank") as writer:
        for number in range(12):
            pixels = torch.randint(0, 60, (10, 3, 16, 16), dtype=torch.uint8, generator=dice) + 190 * (number >= 6)
            writer.add(f"class {number:02d}", pixels.to(torch.uint8), split="train")
        for number in range(2):
            writer.add(f"other {number}", torch.full((160, 3, 16, 16), 127, dtype=torch.uint8), split="val")
    return folder


@pytest.mark.slow
def test_each_process_reads_its_own_classes_and_all_train_as_one(bank: Path) -> None:
    together = run_ranks(RANKS, everything, str(bank))
    for case, expected in all_gradients().items():
        scale = max(1.0, *(float(gradient.abs().max()) for gradient in expected))
        for one in together:
            for a, b in zip(expected, one["gradients"][case], strict=True):
                assert float((a - b).abs().max()) <= TOLERANCE[torch.float64] * scale, case
    for name, weights in together[0]["weights"].items():
        for a, b in zip(weights, together[1]["weights"][name], strict=True):
            assert torch.equal(a, b), name
        for a, b in zip(weights, trained(name), strict=True):
            assert torch.allclose(a, b, rtol=1e-6, atol=1e-6), name
    alone = from_a_bank(str(bank))
    for one in together:
        assert one["bank"]["preprocess"] == together[0]["bank"]["preprocess"]
        assert one["bank"]["preprocess"].mean == pytest.approx(alone["preprocess"].mean, rel=1e-5)
        assert one["bank"]["preprocess"].std == pytest.approx(alone["preprocess"].std, rel=1e-3)
        assert all(
            torch.equal(a, b) for a, b in zip(one["bank"]["weights"], together[0]["bank"]["weights"], strict=True)
        )
    assert json.loads((bank / "run2" / "settings.json").read_text())["train"]["local_shards"] == RANKS
    assert together[0]["refused"] == (
        "local_shards divides the classes into 3 parts, of which 2 processes cannot hold equally many; take "
        "local_shards=2 or a multiple of it, or start fewer processes"
    )


def test_another_number_of_parts_is_another_run(bank: Path) -> None:
    for parts in (2, 3):
        settings = {"steps": 1, "local_shards": parts, "ways": 6, "validation_tasks": 1, "validation_ways": 2}
        job = Job("protonet", {}, settings, data=f"bank:{bank}/bank")
        if parts == 2:
            start(job, bank / "run")
            continue
        with pytest.raises(MetarepError, match=r"train.local_shards"):
            start(job, bank / "run")


def test_what_needs_all_images_is_refused() -> None:
    local = {"local_shards": 2}
    with pytest.raises(
        MetarepError, match="labels=clusters reads images of all classes, and with local_shards a process"
    ):
        Job("protonet", train=local, labels="clusters:run")
    with pytest.raises(MetarepError, match="labels_per_class reads images of all classes"):
        Job("protonet", train=local, labels_per_class=5)
    with pytest.raises(MetarepError, match="mine=index chooses among all classes"):
        TrainSettings(local_shards=2, mine="index")
