"""Mining: the classes of a batch are each other's nearest, by an index of all; a resumed run knows them still."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.batch import BatchShape, LabelledBatch, TaskBatch, ViewBatch
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.encoders import Encoder, Preprocess
from metarep.errors import DataError, MetarepError
from metarep.experiments.hard_classes import IMAGES, HardClasses
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training import train
from metarep.learners import Prototypes
from metarep.methods import Method, ProtoNet, Siamese, SimCLR, Triplet
from metarep.weights.record import RunRecord
from metarep.weights.settings import TrainSettings

Drawings = tuple[Split, Split]


def pixels(side: int = 20) -> Prototypes:
    return Prototypes(Encoder(nn.Flatten(), Preprocess((side, side), 1, (0.0,), (1.0,))))


def mined(split: Split, near: int = 3, eats: Any = LabelledBatch, **shape: int) -> HardClasses:
    return HardClasses(eats, split.labels, BatchShape(**({"ways": 12, "shots": 2} | shape)), near)


@pytest.mark.parametrize("turn", [0, 1, 5])
def test_the_nearest_classes_are_those_of_a_loop(drawings: Drawings, turn: int) -> None:
    split, learner = drawings[0], pixels()
    miner = mined(split)
    miner.refresh(learner, split.bank, turn=turn)
    features = functional.normalize(learner.embed(split.bank.images))
    means = []
    for c in range(40):
        own = (split.labels.classes == c).nonzero().flatten()
        means.append(torch.stack([features[own[(i + turn * IMAGES) % 20]] for i in range(IMAGES)]).mean(0))
    for c in range(40):
        scores = torch.stack([functional.cosine_similarity(means[c], other, dim=0) for other in means])
        scores[c] = -2
        assert miner.near[c].tolist() == scores.topk(3).indices.tolist()


def test_a_class_is_never_its_own_rival_even_among_copies() -> None:
    bank = ImageBank.from_arrays(torch.full((60, 4, 4), 7, dtype=torch.uint8))
    split = Split(bank, Labels.of([i // 6 for i in range(60)]), "copies")
    miner = mined(split, near=2, ways=4)
    miner.refresh(pixels(4), bank, turn=0)
    assert miner.near.shape == (10, 2)
    assert not (miner.near == torch.arange(10).unsqueeze(1)).any()


def test_a_drawn_class_brings_its_nearest(drawings: Drawings, generator: Generator) -> None:
    split = drawings[0]
    miner = mined(split)
    assert not miner.ready
    miner.refresh(pixels(), split.bank, turn=0)
    together = 0
    for _ in range(20):
        task = miner.draw(generator)
        classes = task.classes[0].tolist()
        assert len(set(classes)) == len(classes) == 12
        assert classes[1:4] == miner.near[classes[0]].tolist()
        assert split.labels.classes[task.support[0]].tolist() == [c for c in classes for _ in range(2)]
        together += sum(miner.near[c, 0].item() in classes for c in classes)
    assert together / 240 > 0.6  # 0.28 if they were drawn alike
    some = mined(split, eats=TaskBatch, tasks=3, queries=4)
    some.refresh(pixels(), split.bank, turn=0)
    assert some.draw(generator).query.shape == (3, 48)


def test_all_classes_may_be_asked_for(drawings: Drawings, generator: Generator) -> None:
    miner = mined(drawings[0], near=99, ways=40)
    miner.refresh(pixels(), drawings[0].bank, turn=0)
    assert sorted(miner.draw(generator).classes[0].tolist()) == list(range(40))


def test_refreshing_changes_neither_weights_nor_statistics(
    drawings: Drawings, small_encoder: Callable[..., Encoder]
) -> None:
    method = Triplet(small_encoder()).train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    mined(drawings[0]).refresh(method.learner, drawings[0].bank, turn=0)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(module.training for module in method.modules())


class PulledError(Exception):
    """The plug."""


@pytest.mark.parametrize("kind", [Siamese, Triplet, ProtoNet])
@pytest.mark.parametrize("pulled", [4, 8])
@pytest.mark.slow
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    kind: type[Method], pulled: int, drawings: Drawings, small_encoder: Callable[..., Encoder], tmp_path: Path
) -> None:
    """Saved at 4, 8 and 12; the index is refreshed at 3, 6, 9 and 12."""
    settings = TrainSettings(
        steps=13, ways=8, shots=2, queries=2, validate_every=4, mine="index", mine_every=3, validation_tasks=5
    )

    def go(folder: str, stop: int | None) -> dict[str, Tensor]:
        method = kind(small_encoder())

        def watch(record: dict[str, Any]) -> None:
            if record["step"] == stop and "accuracy" not in record:
                raise PulledError

        run = RunFolder(tmp_path / folder, RunRecord("protonet"), [])
        train(method, drawings[0], settings, validation=drawings[1], run=run, watch=watch)
        return {name: value.clone() for name, value in method.state_dict().items()}

    whole = go("whole", None)
    with pytest.raises(PulledError):
        go("pulled", 13 if pulled == 8 else 8)
    resumed = go("pulled", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_mining_makes_other_batches_only_when_asked(drawings: Drawings, small_encoder: Callable[..., Encoder]) -> None:
    def trained(**settings: Any) -> Tensor:
        method = Triplet(small_encoder())
        train(method, drawings[0], TrainSettings(steps=6, ways=8, shots=2, validate_every=99, **settings))
        return next(method.parameters()).detach()

    plain = trained()
    assert torch.equal(plain, trained(mine="batch", mine_every=2))
    assert torch.equal(plain, trained(mine="index", mine_every=6))
    assert not torch.equal(plain, trained(mine="index", mine_every=2))


def test_what_cannot_be_mined_is_refused(drawings: Drawings, small_encoder: Callable[..., Encoder]) -> None:
    with pytest.raises(MetarepError, match="mine=index draws classes, and this method eats views"):
        train(SimCLR(small_encoder()), drawings[0], TrainSettings(steps=1, mine="index"))
    with pytest.raises(DataError, match="batches with 2 images a class need 50 classes"):
        mined(drawings[0], ways=50)
    with pytest.raises(MetarepError, match="needs at least 2 images a class to make pairs, not shots=1"):
        mined(drawings[0], shots=1)
    with pytest.raises((MetarepError, TypeCheckError), match=r"(?s)mine.*idx"):
        TrainSettings(mine="idx")  # type: ignore[arg-type]
    with pytest.raises(MetarepError, match="mine_every must be at least 1, not 0"):
        TrainSettings(mine_every=0)
    assert ViewBatch.label_free
