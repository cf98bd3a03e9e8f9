"""How right a model is on images whose classes are known: new ones, in one folder a class."""

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
    """One image, what it is, and what the model says.

    Args:
        path: its file.
        label: its class, as the model calls it if it knows it.
        answer: what was said.
    """

    path: Path
    label: str
    answer: Answer

    @property
    def said(self) -> str:
        """The class that was named, or none of these."""
        return self.answer.label if self.answer.known else NONE

    @property
    def right(self) -> bool:
        """Whether its class is the likeliest, whatever is said of none of these."""
        return self.answer.label == self.label


@dataclass(frozen=True)
class Verdict:
    """How right a model is.

    Args:
        names: the classes of the model.
        judged: the images of its classes.
        strangers: the images of classes that it does not know.
        repeated: files that are pictures of the model already, and are not judged.
    """

    names: tuple[str, ...]
    judged: tuple[Judged, ...]
    strangers: tuple[Judged, ...]
    repeated: tuple[Path, ...] = ()

    @property
    def classes(self) -> dict[str, list[Judged]]:
        """The images of each class of the model that was tested, in the order of their names."""
        return _by_label(self.judged)

    @property
    def strange_classes(self) -> dict[str, list[Judged]]:
        """The images of each class that the model does not know."""
        return _by_label(self.strangers)

    @property
    def untested(self) -> tuple[str, ...]:
        """Classes of the model without an image here."""
        return tuple(name for name in self.names if name not in self.classes)

    def confusion(self) -> tuple[Float[Tensor, "n n"], list[str]]:
        """How often what each row is was taken for what each column is, and their names: classes that were met, and
        none of these, which is what strangers are.
        """
        place = {name: i for i, name in enumerate((*self.names, NONE))}
        counts = torch.zeros(len(place), len(place))
        for each in self.judged:
            counts[place[each.label], place[each.said]] += 1
        for each in self.strangers:
            counts[-1, place[each.said]] += 1
        met = (counts.sum(0) + counts.sum(1) > 0).nonzero().flatten()
        return counts[met][:, met], [(*self.names, NONE)[i] for i in met.tolist()]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it; shares are in percent, with their 95 % intervals (Wilson's)."""
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
    """Ask the model of every image, and compare.

    Pictures that the model has learned are left out: it has seen the answer.

    Args:
        folder: the model.
        files: images, each with its class; names are compared as :meth:`metarep.model.gallery.Gallery.called` does.
        batch: images at a time.
        depth: how to read pictures of more than 8 bits; by default as the model's own were.
        skip_bad: leave out images that cannot be read.
        on_progress: called with how many more are done.

    Raises:
        MetarepError: there is no image, or none that the model has not learned.
        DataError: an image that cannot be read.

    Warns:
        LeftOutWarning: with ``skip_bad``, of each image that cannot be read.
    """
    model = folder.model
    gallery = model.gallery
    known = [folder.image(number) for number in gallery.ids.tolist()]
    found: list[Judged] = []
    repeated: list[Path] = []
    left_out = LeftOut()
    order = left_out.others()
    paths = [path for path, _ in files]
    for pixels, rows in model.read(paths, batch=batch, depth=depth, left_out=left_out if skip_bad else None):
        alike = find_repeats(list(pixels), model.features_of(rows), known, model.features if known else rows[:0])
        some = [files[place] for place in islice(order, len(rows))]
        for (path, label), answer, other in zip(some, model.answer(rows, 0), alike, strict=True):
            if other is not None and other < len(known):
                repeated.append(path)
            else:
                found.append(Judged(path, gallery.called(label), answer))
        on_progress(len(rows))
    left_out.tell(len(files))
    if not found:
        what = "every one is a picture that the model has learned; take new ones" if repeated else "there are none"
        raise MetarepError(f"no images to judge the model by: {what}")
    judged = tuple(each for each in found if each.label in gallery.names)
    strangers = tuple(each for each in found if each.label not in gallery.names)
    return Verdict(gallery.names, judged, strangers, tuple(repeated))


def share(part: int, of: int) -> Share:
    """A share in percent with its 95 % interval; None where there is nothing to take it of.

    >>> share(9, 10)
    {'count': 9, 'of': 10, 'percent': 90.0, 'interval': (59.58, 98.21)}
    """
    percent, interval = (round(100 * part / of, 2), wilson(part, of)) if of else (None, None)
    return {"count": part, "of": of, "percent": percent, "interval": interval}


def taken_for(images: Sequence[Judged]) -> dict[str, int]:
    """What other classes were likeliest, the most often first."""
    wrong = [each.answer.label for each in images if not each.right]
    return dict(sorted({name: wrong.count(name) for name in set(wrong)}.items(), key=lambda pair: (-pair[1], pair[0])))


def _by_label(images: Sequence[Judged]) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = {}
    for each in sorted(images, key=lambda each: each.label):
        found.setdefault(each.label, []).append(each)
    return found
