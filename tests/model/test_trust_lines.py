"""What is printed of trust is true of the model."""

from pathlib import Path

import torch
from torch import Tensor

from metarep.cli.predict import as_text
from metarep.cli.trust_lines import class_lines, copy_lines, trust_line
from metarep.model.answers import Answer, Neighbour
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.trust.carried import carried_accuracy


def fitted(*classes: Tensor) -> Model:
    """Features of each class, and a model of them."""
    labels = [str(place) for place, rows in enumerate(classes) for _ in rows]
    gallery = Gallery.empty().add(torch.cat(classes), labels, [f"{i}.jpg" for i in range(len(labels))])
    return Model(None, {"name": "prototypes"}, gallery)


def near(place: int, images: int, apart: float = 0.4) -> Tensor:
    generator = torch.Generator().manual_seed(place)
    return torch.eye(4)[place] + apart * torch.rand(images, 4, generator=generator)


def test_a_class_that_is_always_right_needs_nothing():
    model = fitted(near(0, 50), near(1, 3))
    assert model.trust.accuracy == 100.0
    assert class_lines(model) == [], "both classes are right each time"


def test_no_accuracy_is_above_100():
    for images in range(2, 40):
        counts = torch.tensor([images, images])
        for left in (counts - 1.0, counts / 2.0):
            assert carried_accuracy(torch.ones(images), torch.arange(images) % 2, counts, left)[0] == 100.0


def test_classes_that_are_not_tested_count_as_classes_of_one_image():
    """They are answered less well, and nobody knows how much, so the accuracy is lower and the interval wider."""
    right, classes = (torch.arange(60) % 20 > 0).float(), torch.arange(60) % 6
    accuracies, widths = [], []
    for alone in range(4):
        counts = torch.tensor([10] * 6 + [1] * alone)
        accuracy, (low, high) = carried_accuracy(right, classes, counts, (counts - 1.0).clamp_min(1))
        assert low < accuracy < high
        accuracies.append(accuracy)
        widths.append(high - low)
    assert accuracies == sorted(accuracies, reverse=True)
    assert widths == sorted(widths)
    assert accuracies[3] < accuracies[0] - 5


def test_classes_of_copies_use_up_no_test() -> None:
    """Thirty classes of two copies each, and one of different images, which alone can keep one of them."""
    rows = torch.eye(32)[torch.arange(31).repeat_interleave(2)]
    rows = torch.cat([rows[:60], near(0, 6).new_zeros(6, 32) + torch.eye(32)[30] + torch.eye(32)[24:30] * 0.5])
    names = [f"{i:02}" for i in [*torch.arange(30).repeat_interleave(2).tolist(), *[30] * 6]]
    model = Model(None).changed(Gallery.empty().add(rows, names, [""] * 66))
    assert model.trust.tested == 6
    assert model.self_test.alone is not None
    assert model.self_test.alone.shape == (1,)
    assert model.trust.interval is not None
    assert model.trust.interval[1] - model.trust.interval[0] > 20, "one class says little of thirty others"


def test_the_gain_is_that_of_the_classes_where_images_were_wrong():
    counts, left = torch.tensor([2, 20]), torch.tensor([1.0, 19.0])
    classes = torch.arange(2).repeat_interleave(20)
    small, large = ((torch.arange(40) - start) % 40 >= 4 for start in (0, 20))
    gained = [carried_accuracy(right.float(), classes, counts, left)[0] for right in (small, large)]
    assert gained[0] > gained[1] + 2 > 92, "a second image helps more than a twentieth"


def test_classes_that_are_not_tested_are_told():
    model = fitted(near(0, 4), near(1, 4), near(2, 1), torch.eye(4)[3].repeat(5, 1))
    line = trust_line(model)
    assert "by leaving 8 images out" in line
    assert "1 class has one image and is not tested" in line
    assert "1 class has near copies of one image only and is not tested, but estimated from the others" in line
    assert copy_lines(model) == ["near copies, counted as one: 9.jpg, 10.jpg, 11.jpg and 2 more"]


def test_a_model_with_one_image_a_class_says_what_is_not_set():
    line = trust_line(fitted(near(0, 1), near(1, 1)))
    assert line.endswith("so probabilities are not set, and no image is called none of these")


def test_no_probability_is_written_that_is_not_set():
    answer = Answer("0", 1.0, True, ("0", "1"), {"0": 1.0, "1": 0.0}, (Neighbour(0, "0.jpg", "0", 0.9),))
    first, near = as_text(Path("new.jpg"), answer, calibrated=False).splitlines()
    assert (first, near) == ("new.jpg: 0  (how probable: unknown)", "    looked at: 0.jpg (0.90)")
    assert as_text(Path("new.jpg"), answer, calibrated=True).startswith("new.jpg: 0  1.00  or 1\n")


def test_an_accuracy_of_guessing_is_called_so():
    noise = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))
    assert "; not surely better than guessing, which is right in 25 %" in trust_line(fitted(*noise.split(10)))
    assert "guessing" not in trust_line(fitted(near(0, 10), near(1, 10)))


def test_a_weak_class_is_named_with_its_share():
    wrong = torch.cat([near(1, 4), near(0, 6)])
    model = fitted(near(0, 30), wrong)
    assert len(class_lines(model)) == 1
    assert class_lines(model)[0].startswith("needs more images: 1, ")
    assert class_lines(model)[0].endswith(" % right of 10 images left out")


def test_weak_classes_that_are_not_printed_are_counted():
    images = torch.eye(40)[:34].repeat_interleave(2, 0) + 0.3 * torch.rand(68, 40, generator=torch.Generator())
    images[-14:] = images[:14].flip(0)  # seven classes that look like others
    lines = class_lines(fitted(*images.split(2)))
    assert len(lines) == 6
    assert lines[-1].endswith("--json lists them")
