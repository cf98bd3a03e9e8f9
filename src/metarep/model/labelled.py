"""Evaluates a model on new images of known class, in one folder a class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.data.reading.depth import Depth
from metarep.data.reading.photographs import LeftOut
from metarep.errors import MetarepError
from metarep.model.answers import Answer
from metarep.model.folder import ModelFolder
from metarep.model.repeats import find_repeats
from metarep.model.trust.trust import wilson

NONE = "none of these"
Share = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """One evaluated image, with its true class and the answer of the model.

    Args:
        path: the file of the image.
        label: its true class. If the model knows the class, this is the model's name of it.
        answer: the answer of the model.

    >>> answer = Answer("moth", 0.9, True, ("moth",), {"moth": 0.9, "fly": 0.1}, ())
    >>> image = Judged(Path("1.jpg"), "fly", answer)
    >>> image.said, image.right
    ('moth', False)
    """

    path: Path
    label: str
    answer: Answer

    @property
    def said(self) -> str:
        """The class that the model named, or "none of these"."""
        return self.answer.label if self.answer.known else NONE

    @property
    def right(self) -> bool:
        """Whether the true class is the most probable one, even if the image was rejected as "none of these"."""
        return self.answer.label == self.label


@dataclass(frozen=True)
class Verdict:
    """The result of an evaluation.

    Args:
        names: the class names of the model.
        judged: the evaluated images of its classes.
        strangers: the evaluated images of unknown classes.
        repeated: files that were not evaluated, because the model has learned the same picture.

    >>> answer = Answer("moth", 0.9, True, ("moth",), {"moth": 0.9, "fly": 0.1}, ())
    >>> verdict = Verdict(("moth", "fly"), (Judged(Path("1.jpg"), "fly", answer),), ())
    >>> verdict.untested, verdict.as_dict()["accuracy"]["percent"]
    (('moth',), 0.0)
    >>> verdict.confusion()
    (tensor([[0., 0.],
            [1., 0.]]), ['moth', 'fly'])
    """

    names: tuple[str, ...]
    judged: tuple[Judged, ...]
    strangers: tuple[Judged, ...]
    repeated: tuple[Path, ...] = ()

    @property
    def classes(self) -> dict[str, list[Judged]]:
        """The images of each tested class of the model, sorted by class name."""
        return _by_label(self.judged)

    @property
    def strange_classes(self) -> dict[str, list[Judged]]:
        """The images of each unknown class, sorted by class name."""
        return _by_label(self.strangers)

    @property
    def untested(self) -> tuple[str, ...]:
        """The classes of the model that no image was given for."""
        return tuple(name for name in self.names if name not in self.classes)

    def confusion(self) -> tuple[Float[Tensor, "n n"], list[str]]:
        """Counts the confusion matrix.

        Returns:
            The counts, shape ``(n, n)``, with a row for the true class and a column for the named class; and the names
            of rows and columns. "None of these" is one of them: the true class of images of unknown classes. Classes
            without any count are left out.
        """
        index = {name: i for i, name in enumerate((*self.names, NONE))}
        counts = torch.zeros(len(index), len(index))
        for each in self.judged:
            counts[index[each.label], index[each.said]] += 1
        for each in self.strangers:
            counts[-1, index[each.said]] += 1
        met = (counts.sum(0) + counts.sum(1) > 0).nonzero().flatten()
        return counts[met][:, met], [(*self.names, NONE)[i] for i in met.tolist()]

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as JSON can hold it. Each share is in percent, with its 95 % interval (Wilson)."""
        return {
            "accuracy": share(sum(each.right for each in self.judged), len(self.judged)),
            "none_of_these": share(sum(not each.answer.known for each in self.judged), len(self.judged)),
            "label_sets": share(sum(each.label in each.answer.label_set for each in self.judged), len(self.judged)),
            "classes": {
                name: {
                    "accuracy": share(sum(each.right for each in own), len(own)),
                    "none_of_these": sum(not each.answer.known for each in own),
                    "taken_for": taken_for(own),
                }
                for name, own in self.classes.items()
            },
            "untested": list(self.untested),
            "strangers": {
                "found": share(sum(not each.answer.known for each in self.strangers), len(self.strangers)),
                "classes": {
                    name: {
                        "found": share(sum(not each.answer.known for each in own), len(own)),
                        "taken_for": taken_for([each for each in own if each.answer.known]),
                    }
                    for name, own in self.strange_classes.items()
                },
            },
            "wrong": [
                {
                    "image": str(each.path),
                    "class": each.label,
                    "label": each.answer.label,
                    "probability": round(each.answer.probability, 6),
                    "known": each.answer.known,
                }
                for each in self.judged
                if not each.right
            ],
            "in_the_model": [str(path) for path in self.repeated],
        }


def judge(
    folder: ModelFolder,
    files: Sequence[tuple[Path, str]],
    *,
    batch: int = 64,
    depth: Depth | None = None,
    skip_bad: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Verdict:
    """Evaluates a model on labelled images.

    Pictures that the model has learned are left out, because their answer is known to it.

    Args:
        folder: the model.
        files: the images, each with its class name. Names are compared as by
            :meth:`metarep.model.gallery.Gallery.called`.
        batch: the number of images that are encoded at a time.
        depth: black and white of images of more than 8 bits; by default those of the model.
        skip_bad: whether to leave out images that cannot be read.
        on_progress: called after each batch with the number of images in it.

    Raises:
        MetarepError: no image was given, or the model has learned all of them.
        DataError: an image cannot be read.

    Warns:
        LeftOutWarning: with ``skip_bad``, for each image that cannot be read.

    >>> import tempfile
    >>> from PIL import Image
    >>> from metarep import Model, Preprocess, build_encoder
    >>> _ = torch.manual_seed(1)
    >>> stripes = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    >>> stripes[0, :, ::4], stripes[1, :, :, ::4] = 255, 255  # rows, and columns
    >>> encoder = build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,)), width=4)
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = ModelFolder.create(Path(parent) / "stripes", Model(encoder, {"name": "prototypes"}))
    ...     ids = folder.learn(stripes.numpy(), ["rows", "columns"], ["1.png", "2.png"])
    ...     wider = Image.new("L", (16, 16))
    ...     wider.paste(255, (0, 4, 16, 8))
    ...     wider.save(Path(parent) / "new.png")
    ...     verdict = judge(folder, [(Path(parent) / "new.png", "rows")])
    >>> verdict.judged[0].answer.label, verdict.as_dict()["accuracy"]["percent"]
    ('rows', 100.0)
    """
    model = folder.model
    gallery = model.gallery
    known = [folder.image(number) for number in gallery.ids.tolist()]
    evaluated: list[Judged] = []
    repeated: list[Path] = []
    left_out = LeftOut()
    order = left_out.others()
    paths = [path for path, _ in files]
    for pixels, rows in model.read(paths, batch=batch, depth=depth, left_out=left_out if skip_bad else None):
        alike = find_repeats(list(pixels), model.features_of(rows), known, model.features if known else rows[:0])
        some = [files[i] for i in islice(order, len(rows))]
        for (path, label), answer, other in zip(some, model.answer(rows, 0), alike, strict=True):
            if other is not None and other < len(known):
                repeated.append(path)
            else:
                evaluated.append(Judged(path, gallery.called(label), answer))
        on_progress(len(rows))
    left_out.tell(len(files))
    if not evaluated:
        if repeated:
            raise MetarepError("the model has learned every one of these images; give new ones to judge it by")
        raise MetarepError("there are no images to judge the model by; give at least one for each class")
    judged = tuple(each for each in evaluated if each.label in gallery.names)
    strangers = tuple(each for each in evaluated if each.label not in gallery.names)
    return Verdict(gallery.names, judged, strangers, tuple(repeated))


def share(part: int, of: int) -> Share:
    """Returns a share in percent with its 95 % interval; both are None if ``of`` is 0.

    >>> share(9, 10)
    {'count': 9, 'of': 10, 'percent': 90.0, 'interval': (59.58, 98.21)}
    """
    percent, interval = (round(100 * part / of, 2), wilson(part, of)) if of else (None, None)
    return {"count": part, "of": of, "percent": percent, "interval": interval}


def taken_for(images: Sequence[Judged]) -> dict[str, int]:
    """Counts which wrong classes the images were taken for, the most frequent first.

    >>> answer = Answer("moth", 0.9, True, ("moth",), {"moth": 0.9, "fly": 0.1}, ())
    >>> taken_for([Judged(Path("1.jpg"), "fly", answer), Judged(Path("2.jpg"), "moth", answer)])
    {'moth': 1}
    """
    wrong = [each.answer.label for each in images if not each.right]
    return dict(sorted({name: wrong.count(name) for name in set(wrong)}.items(), key=lambda pair: (-pair[1], pair[0])))


def _by_label(images: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Groups the images by their true class, sorted by class name."""
    groups: dict[str, list[Judged]] = {}
    for each in sorted(images, key=lambda each: each.label):
        groups.setdefault(each.label, []).append(each)
    return groups
