"""Batches of strata: every batch has equally much of each part of the classes, and otherwise is drawn as ever."""

import pytest
import torch
from torch import Generator

from metarep.data.augment import preset
from metarep.data.batch import BatchShape, LabelledBatch, TaskBatch, ViewBatch
from metarep.data.batches import draw_batch
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.local_bank import LocalBank
from metarep.data.split import Split
from metarep.data.strata import Strata
from metarep.errors import DataError, MetarepError

SHAPE = BatchShape(ways=6, shots=2, queries=3, tasks=6, images=30)
VIEWS = preset("views-drawings")
CLASSES, EACH, PARTS = 13, 8, 3  # parts of 4, 4 and 5 classes


def split(groups: bool = False) -> Split:
    """Images whose pixels are their classes, in no order; those of a class have four groups."""
    classes = (
        torch.arange(CLASSES * EACH)[torch.randperm(CLASSES * EACH, generator=Generator().manual_seed(1))] % CLASSES
    )
    names = tuple(f"class {number:02d}" for number in range(CLASSES))
    seen, group = [0] * CLASSES, []
    for each in classes.tolist():
        seen[each] += 1
        group.append(seen[each] % 4)
    pixels = classes.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return Split(ImageBank(pixels), Labels(classes, names, names, torch.tensor(group) if groups else None), "squares")


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize(("spans", "tasks"), [(False, 6), (True, 6), (True, 2)])
def test_tasks_have_equally_many_classes_of_each_part(spans: bool, tasks: int, groups: bool) -> None:
    local = split(groups).local(PARTS)
    strata, generator = Strata.of(local.labels, PARTS), Generator().manual_seed(0)
    whole = tasks >= PARTS
    shape = BatchShape(ways=3, shots=2, queries=3, tasks=tasks)
    orders = set()
    for _ in range(20):
        batch = draw_batch(TaskBatch, local.bank, local.labels, shape, None, generator, spans=spans, strata=strata)
        assert isinstance(batch, TaskBatch)
        index = batch.tasks
        classes = batch.images[:, 0, 0, 0].long()
        assert (local.labels.classes[batch.rows] == classes).all()
        part_of = torch.bucketize(classes, torch.tensor(strata.classes), right=True) - 1
        assert part_of.tolist() == sorted(part_of.tolist())  # so that each process has its own
        for task in range(tasks):
            for rows, numbers in (
                (index.support[task], index.support_y[task]),
                (index.query[task], index.query_y[task]),
            ):
                assert torch.equal(classes[rows], index.classes[task][numbers])
            used = torch.cat([index.support[task], index.query[task]])
            assert len(batch.rows[used].unique()) == 3 * 5
            parts = [int(part_of[index.support[task][index.support_y[task] == way][0]]) for way in range(3)]
            assert sorted(parts) == ([parts[0]] * 3 if whole else [0, 1, 2])
            orders.add(tuple(parts))
            if groups:
                assert index.groups is not None
                known = local.labels.groups
                assert known is not None
                assert torch.equal(known[batch.rows[used]], index.groups[task])
                for way in range(3):
                    shown, asked = (
                        set(known[batch.rows[rows[numbers == way]]].tolist())
                        for rows, numbers in (
                            (index.support[task], index.support_y[task]),
                            (index.query[task], index.query_y[task]),
                        )
                    )
                    assert not shown & asked
    assert len(orders) == (3 if whole else 6)  # no part is told by the number of a class


def test_all_classes_and_images_of_a_part_are_drawn() -> None:
    local = split().local(PARTS)
    strata, generator = Strata.of(local.labels, PARTS), Generator().manual_seed(0)
    batch = draw_batch(LabelledBatch, local.bank, local.labels, SHAPE, None, generator, strata=strata)
    assert isinstance(batch, LabelledBatch)
    assert torch.equal(local.labels.classes[batch.rows], batch.classes)
    assert batch.labels.tolist() == torch.arange(6).repeat_interleave(2).tolist()
    counts = torch.zeros(CLASSES * EACH)
    for _ in range(400):
        rows = strata.draw_images(30, generator)
        assert len(set(rows.tolist())) == 30
        counts[rows] += 1
    share = torch.cat([torch.full((len(part),), 10 / len(part)) for part in strata.parts])
    assert ((counts / 400 - share).abs() < 0.12).all()  # five standard deviations
    assert draw_batch(ViewBatch, local.bank, local.labels, SHAPE, VIEWS, generator, strata=strata).rows.shape == (30,)


def test_what_cannot_be_divided_is_refused() -> None:
    local = split().local(PARTS)
    strata, generator = Strata.of(local.labels, PARTS), Generator()
    for eats, shape, message in (
        (
            ViewBatch,
            BatchShape(images=31),
            "a batch takes equally many images of each of 3 parts .local_shards., and 31 cannot",
        ),
        (
            LabelledBatch,
            BatchShape(ways=7, shots=2),
            "equally many ways of each of 3 parts .local_shards., and 7 cannot",
        ),
        (
            TaskBatch,
            BatchShape(ways=2, tasks=4),
            "and 4 cannot be divided; make tasks a multiple of 3",
        ),
        (ViewBatch, BatchShape(images=99), "a batch of 99 images takes 33 of each of 3 parts .* and one has 32"),
        (
            LabelledBatch,
            BatchShape(ways=15, shots=2),
            "part 1 of the 3 parts of the classes .local_shards.: batches with",
        ),
    ):
        with pytest.raises(MetarepError, match=message):
            draw_batch(eats, local.bank, local.labels, shape, VIEWS, generator, spans=False, strata=strata)
    with pytest.raises(DataError, match="13 classes are too few for 14 parts"):
        split().local(14)
    several = Labels(local.labels.classes, local.labels.names, local.labels.keys, others=(local.labels,))
    with pytest.raises(DataError, match="only the classes of a single partition can be divided"):
        local._replace(bank=split().bank, labels=several).local(2)


def test_a_bank_of_some_rows_gives_no_others() -> None:
    bank = LocalBank.of(ImageBank(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)), 10, 20)
    assert bank.pixels(torch.tensor([[10, 14]])).flatten().tolist() == [0, 4]
    for ask in (
        lambda: bank.pixels(torch.tensor([9])),
        lambda: bank.pixels(torch.tensor([15])),
        lambda: bank.images,
        lambda: bank.chunks(2),
        lambda: bank.between(10, 11),
    ):
        with pytest.raises(DataError, match="this process holds the images 10 to 14 of 20 only"):
            ask()
