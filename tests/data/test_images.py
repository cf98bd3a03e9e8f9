"""Images and labels as people bring them: every layout gives the same pixels, and a class is the same everywhere."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.reading.decode import decode
from metarep.errors import DataError

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


COLOURS = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in PIXELS]
GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)


class HuggingFace(list):
    """A list with the features of a data set of Hugging Face."""

    def __init__(self, items: list[Any], **features: Any) -> None:
        super().__init__(items)
        self.features = features


def file_of(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "items",
    {
        "dictionaries": [{"image": COLOURS[0], "label": 1}, {"image": COLOURS[1], "label": 0}],
        "other names": [{"img": COLOURS[0], "fine_label": 1}, {"img": COLOURS[1], "fine_label": 0}],
        "triples": [(COLOURS[0], 1, "from Peru"), (COLOURS[1], 0, "from Chile")],
        "one-hot": [(COLOURS[0], torch.tensor([0, 1])), (COLOURS[1], np.array([1.0, 0.0]))],
        "one-hot lists": [(COLOURS[0], [0, 1]), (COLOURS[1], [1, 0])],
        "arrays of one": [(COLOURS[0], torch.tensor([1])), (COLOURS[1], np.array([0]))],
        "bytes": [(file_of(COLOURS[0]), 1), (file_of(COLOURS[1]), 0)],
        "not decoded": [
            {"image": {"bytes": file_of(COLOURS[0]), "path": None}, "label": 1},
            {"image": {"bytes": file_of(COLOURS[1]), "path": "a.png"}, "label": 0},
        ],
    }.items(),
    ids=lambda each: each[0],
)
def test_items_of_any_kind_give_images_and_labels(items: tuple[str, list[Any]]) -> None:
    bank, labels = ImageBank.from_dataset(items[1])
    assert torch.equal(bank.images, PIXELS[:2])
    assert (labels.names, labels.classes.tolist()) == (("0", "1"), [1, 0])


def test_keys_of_image_and_label_may_be_given_and_class_names_are_used() -> None:
    class Classes:
        names = ("cat", "dog")

    items = [{"photo": each, "kind": i % 2, "breed": 7} for i, each in enumerate(COLOURS[:2])]
    bank, labels = ImageBank.from_dataset(HuggingFace(items, kind=Classes(), photo=None), label="kind")
    assert torch.equal(bank.images, PIXELS[:2])
    assert (labels.names, labels.classes.tolist()) == (("cat", "dog"), [0, 1])
    bank, labels = ImageBank.from_dataset([(0, COLOURS[0], "a"), (1, COLOURS[1], "b")], image=1, label=2)
    assert labels.names == ("a", "b")
    items[1]["kind"] = -1
    with pytest.raises(DataError, match="item 1 has no class: its label is -1; leave out the items without one"):
        ImageBank.from_dataset(HuggingFace(items, kind=Classes()), label="kind")


def test_pictures_of_every_mode_are_seen_as_they_look() -> None:
    palette = COLOURS[0].quantize(256)
    clear = Image.fromarray(np.concatenate([GREY[..., None].repeat(3, -1), np.zeros_like(GREY)[..., None]], -1))
    pictures = {
        "P": palette,
        "L": Image.fromarray(GREY),
        "1": Image.fromarray(GREY > 20),
        "LA": Image.fromarray(GREY).convert("LA"),
        "RGBA": clear,
        "CMYK": COLOURS[0].convert("CMYK"),
    }
    for mode, picture in pictures.items():
        assert picture.mode == mode
        grey = mode in ("L", "1", "LA")
        expected = decode(picture, size=None, channels=1 if grey else 3, name=mode)
        assert np.array_equal(ImageBank.from_dataset([(picture, 0)])[0].images[0].numpy(), expected)
    assert (ImageBank.from_dataset([(clear, 0)])[0].images == 255).all(), "what is transparent is white"
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(ImageBank.from_dataset([(palette, 0)])[0].images[0].numpy(), expected), "not its indices"
    mixed, _ = ImageBank.from_dataset([(pictures["L"], 0), (COLOURS[0], 1), (GREY, 0)])
    assert mixed.images.shape == (3, 3, 6, 8), "grey among colours, as in most collections of photographs"
    assert (mixed.images[0] == mixed.images[2]).all()
    assert (mixed.images[0] == torch.from_numpy(GREY)).all()


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the data set is empty"),
        (iter([(GREY, 0)]), "a list_iterator has no length, so its items cannot be indexed by number"),
        (
            {"train": [], "test": []},
            r"a dictionary of data sets \('train', 'test'\) is not a data set; give one of them",
        ),
        ([GREY], r"item 0 is of type ndarray; an item is \(image, label\), or \{'image': ..., 'label': ...\}"),
        ([(GREY,)], "item 0 is a tuple of length 1, and image=0 or label=1 is not a position in it"),
        ([{"image": GREY, "a": 1, "b": 2}], "item 0 has nothing called label .* 'a', 'b'.; say .* with label=NAME"),
        ([{"image": GREY, "fine_label": 1, "coarse_label": 2}], "item 0 has several labels .*'coarse_label'"),
        ([(GREY, 0), (GREY, None)], "item 1 has no class: it is None; leave out the items without one"),
        ([(GREY, 0), (GREY, float("nan"))], "item 1 has no class: it is nan"),
        ([(GREY, torch.tensor(torch.nan))], "item 0 has no class: it is nan"),
        ([(GREY, [0, 1, 1])], r"item 0 has a label that is neither one class nor one-hot: \[0, 1, 1\]"),
        ([(GREY, [0.3, 0.7])], r"neither one class nor one-hot: \[0.3, 0.7\]"),
        ([(GREY, GREY)], r"neither one class nor one-hot: of shape \(6, 8\)"),
        ([(GREY, Image.fromarray(GREY))], "item 0 has a label of type Image"),
        ([(7, 0)], "item 0 has an image of type int; give a picture, an array or a tensor"),
        ([(np.zeros((6, 8, 5), np.uint8), 0)], r"item 0 has an image of shape \(6, 8, 5\): images must have shape"),
        ([(torch.full((1, 4, 4), torch.nan), 0)], "item 0: torch.float32 pixels must be uint8, or floats from 0 to 1"),
        ([(torch.full((1, 4, 4), 1.01), 0)], "item 0: torch.float32 pixels must be uint8, or floats from 0 to 1"),
        ([(torch.full((1, 4, 4), -0.01), 0)], r"item 0: .* \(leave out Normalize\)"),
        ([(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 4, 4, dtype=torch.int64), 0)], "item 1: torch.int64 pixels"),
        ([(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 4, 5), 0)], "and all must have one size; resize them"),
    ],
)
def test_a_torch_data_set_of_something_else_is_refused(items: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageBank.from_dataset(items)


def test_classes_are_numbered_in_an_order_that_people_expect() -> None:
    assert Labels.of([10, 9, 2, 10]).names == ("2", "9", "10")
    assert Labels.of(["b", "10", "9", "a"]).names == ("9", "10", "a", "b")
    assert Labels.of(["①", "2", "²", "1", "٣", "9" * 5000]).names == ("1", "2", "9" * 5000, "²", "٣", "①")
    assert Labels.of(torch.tensor([1, 0, 1])).names == ("0", "1")
    assert Labels.of([b"cat", np.str_("dog")]).names == ("cat", "dog")
    for missing in (None, float("nan"), np.float32("nan"), np.datetime64("NaT")):
        with pytest.raises(DataError, match=r"label 1 has no class: it is .*; leave out the items without one"):
            Labels.of(["a", missing])
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
