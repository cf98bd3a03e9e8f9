"""Images and labels as people bring them: every layout gives the same pixels, and a class is the same everywhere."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metarep.errors import DataError
from metarep.images import ImageBank
from metarep.labels import Labels

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 6, 8), dtype=np.uint8))


@pytest.mark.parametrize(
    "layout", [PIXELS, PIXELS.numpy(), PIXELS.permute(0, 2, 3, 1), PIXELS.numpy().transpose(0, 2, 3, 1)]
)
def test_every_layout_gives_the_same_images(layout: Any) -> None:
    bank = ImageBank.from_arrays(layout)
    assert torch.equal(bank.images, PIXELS)
    assert (len(bank), bank.channels, bank.size) == (5, 3, (6, 8))
    assert torch.equal(
        ImageBank.from_arrays(layout[:, :, :, 1] if layout.shape[3] == 3 else layout[:, 1]).images, PIXELS[:, 1:2]
    )
    index = torch.tensor([[0, 3], [4, 4]])
    assert torch.equal(bank.pixels(index), PIXELS[index])


def test_banks_are_joined_in_order_and_only_of_one_size() -> None:
    one, other = ImageBank(PIXELS), ImageBank(PIXELS.flip(0))
    assert torch.equal(ImageBank.join([one, other]).images, torch.cat([PIXELS, PIXELS.flip(0)]))
    with pytest.raises(DataError, match=r"different shapes cannot be joined: \[\(3, 6, 6\), \(3, 6, 8\)\]"):
        ImageBank.join([one, ImageBank(PIXELS[..., :6])])


def test_a_torch_data_set_gives_its_pixels_back() -> None:
    picture = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in PIXELS]
    scaled = [image / 255 for image in PIXELS]  # what ToTensor makes
    for images in (picture, scaled, list(PIXELS), [np.asarray(image) for image in picture]):
        bank, labels = ImageBank.from_dataset(list(zip(images, [torch.tensor(10), 9, 10, 2, 9], strict=True)))
        assert torch.equal(bank.images, PIXELS)
        assert (labels.names, labels.classes.tolist()) == (("2", "9", "10"), [2, 1, 2, 0, 1])
    levels = (torch.arange(256) / 255).view(1, 1, 256)
    assert ImageBank.from_dataset([(levels, "a")])[0].images.flatten().tolist() == list(range(256))
    between = torch.tensor([0.4, 0.6, 254.4, 254.6]).view(1, 2, 2) / 255
    assert ImageBank.from_dataset([(between, "a")])[0].images.flatten().tolist() == [0, 1, 254, 255], "to the nearest"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the data set is empty"),
        ([(torch.full((1, 4, 4), 1.01), 0)], "item 0: torch.float32 pixels must be uint8, or floats from 0 to 1"),
        ([(torch.full((1, 4, 4), -0.01), 0)], r"item 0: .* \(leave out Normalize\)"),
        ([(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 4, 4, dtype=torch.int64), 0)], "item 1: torch.int64 pixels"),
        ([(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 4, 5), 0)], "all images must have one size"),
    ],
)
def test_a_torch_data_set_of_something_else_is_refused(items: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageBank.from_dataset(items)


def test_classes_are_numbered_in_an_order_that_people_expect() -> None:
    assert Labels.of([10, 9, 2, 10]).names == ("2", "9", "10")
    assert Labels.of(["b", "10", "9", "a"]).names == ("9", "10", "a", "b")
    labels = Labels.of(["dog", "cat", "dog"], source="pets")
    assert (labels.names, labels.keys) == (("cat", "dog"), ("pets/cat", "pets/dog"))
    assert Labels.of(["dog"]).keys == ("dog",)
    members = labels.rows.split(labels.counts.tolist())
    assert [rows.tolist() for rows in members] == [[1], [0, 2]]
    assert labels.starts.tolist() == [0, 1]


def test_the_digest_names_classes_and_members() -> None:
    labels = Labels.of(["a", "b", "a"])
    assert labels.digest == Labels.of(["a", "b", "a"]).digest
    others = Labels.of(["a", "b", "b"]), Labels.of(["a", "c", "a"])
    assert len({labels.digest, *(other.digest for other in others)}) == 3


def test_joined_labels_keep_their_classes_apart() -> None:
    one, other = Labels.of(["a", "b", "a"], "x"), Labels.of(["d", "c"], "y")
    joined = Labels.join([one, other])
    assert joined.classes.tolist() == [0, 1, 0, 3, 2]
    assert (joined.names, joined.keys, joined.groups) == (("a", "b", "c", "d"), ("x/a", "x/b", "y/c", "y/d"), None)
    with pytest.raises(DataError, match="two classes are called 'a'"):
        Labels.join([one, one])
    grouped = Labels(other.classes, other.names, other.keys, torch.tensor([5, 6]))
    with pytest.raises(DataError, match="labels with groups and labels without cannot be joined"):
        Labels.join([one, grouped])
    first = Labels(one.classes, one.names, one.keys, torch.tensor([1, 2, 3]))
    assert Labels.join([first, grouped]).groups.tolist() == [1, 2, 3, 5, 6]
