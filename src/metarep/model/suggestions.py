"""Suggests which unlabelled images to label next, and which classes need more images (active learning)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from jaxtyping import Float, Int8, Shaped
from torch import Tensor
from torch.nn import functional

from metarep.data.copies.near_copies import near_copies
from metarep.errors import MetarepError
from metarep.model.confusion import confusion
from metarep.model.gallery import no_hashes
from metarep.model.model import Model

STRANGE = 0.1  # weight of an image that is like no class: it may be of no class that anybody wants
MOST = 20_000  # images whose similarities are held at once, 1.6 GB; of more, the most uncertain ones are candidates


@dataclass(frozen=True)
class Suggestion:
    """An unlabelled image that is worth a label.

    Args:
        row: its row among the unlabelled images.
        label: the class that the model finds most probable.
        second: the class that it finds second; empty if the model has a single class.
        margin: the probability of ``label`` minus that of ``second``, 0 to 1; a small margin is a doubt.
        stands_for: how much better the labelled and the suggested images stand for all unlabelled ones with this one
            than without it, as a share of the weight of these, 0 to 1.
        known: whether the image is like any class of the model; see :class:`metarep.model.answers.Answer`.
        copies: the rows of unlabelled images that are near copies of this one, and are not suggested.

    >>> doubt = Suggestion(7, "owlet", "hawkmoth", margin=0.04, stands_for=0.1, known=True)
    >>> f"image {doubt.row}: {doubt.label} or {doubt.second}?"
    'image 7: owlet or hawkmoth?'
    """

    row: int
    label: str
    second: str
    margin: float
    stands_for: float
    known: bool
    copies: tuple[int, ...] = ()

    def as_dict(self, items: Sequence[str]) -> dict[str, Any]:
        """Returns the fields as JSON can hold them, with ``items``, the names of the unlabelled images, for rows."""
        image, copies = items[self.row], [items[row] for row in self.copies]
        named = {"image": image, "label": self.label, "second": self.second, "margin": round(self.margin, 4)}
        return {**named, "stands_for": round(self.stands_for, 4), "known": self.known, "copies": copies}


@dataclass(frozen=True)
class ClassNeed:
    """What a model knows of one of its classes, by cross-validation on its own images.

    Args:
        label: the class.
        images: the number of its images.
        accuracy: the share in percent of its images that were right when left out; None if none was left out.
        taken_for: the classes that its images were taken for, with the number of images, the most frequent first.
        why: why it needs more images: ``single`` (nothing could be left out), ``inaccurate`` (see
            :class:`metarep.model.trust.trust.ClassTrust`), or ``few`` (less than half of the images of the median
            class); empty if it does not need them more than the others.

    >>> need = ClassNeed("owlet", images=4, accuracy=25.0, taken_for={"moth": 3.0}, why="inaccurate")
    >>> f"{need.label}: {need.accuracy:.0f} % of {need.images} right, taken for {', '.join(need.taken_for)}"
    'owlet: 25 % of 4 right, taken for moth'
    """

    label: str
    images: int
    accuracy: float | None
    taken_for: dict[str, float]
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON can hold them."""
        return asdict(self)


def suggest(
    model: Model,
    rows: Shaped[Tensor, "n *row"],
    *,
    number: int = 10,
    hashes: Int8[Tensor, "n length"] | None = None,
) -> list[Suggestion]:
    """Chooses the unlabelled images whose labels would teach a model most, the most useful first.

    Two things count. **Doubt**: an image weighs 1 minus its margin, the difference of the probabilities of its two best
    classes (Scheffer, Decomain, Wrobel, Active Hidden Markov Models, 2001). **Coverage**: an image stands for another
    one by the cosine of their features. The images are chosen one by one. Each is the one that adds most to the weight
    of all images times how well a labelled or a chosen image stands for them (facility location, whose greedy solution
    is within 1 - 1/e of the best one; Nemhauser, Wolsey, Fisher 1978; Wei, Iyer, Bilmes, Submodularity in Data Subset
    Selection and Active Learning, 2015). Trap: doubt alone suggests many images of one doubtful kind, and the distance
    to what is known (greedy k-centre) suggests outliers, which are like nothing that will be asked; with one image a
    class both were no better than chance. An image that is like no class of the model weighs a tenth, because a folder
    may hold many images of other things.

    Near copies of each other are one image, and near copies of images of the model are not suggested; see
    :mod:`metarep.data.copies.near_copies`.

    Args:
        model: the model; it must have at least one class.
        rows: the prepared rows of the unlabelled images, shape ``(n, *row)``, as :meth:`Model.prepare` returns them.
        number: the number of suggestions. There are fewer if fewer images are left.
        hashes: their picture hashes, by which near copies are found; without them only images are, whose features can
            hardly be told apart.

    Raises:
        MetarepError: the model has no classes, or ``number`` is below 1.

    >>> from metarep import Gallery
    >>> gallery = Gallery.empty().add(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), ["moth", "fly"], ["1.jpg", "2.jpg"])
    >>> model = Model(None, {"name": "prototypes"}, gallery)
    >>> pool = torch.tensor([[1.0, 0.1], [0.7, 0.72], [0.7, 0.72], [0.1, 1.0]])  # two copies, in doubt
    >>> [(each.row, each.copies) for each in suggest(model, pool, number=1)]
    [(1, (2,))]
    """
    if number < 1:
        raise MetarepError(f"number must be at least 1, not {number}")
    if not len(rows):
        return []
    scores, gallery = model.scores(rows), model.gallery
    best = (scores * model.trust.scale).softmax(-1).topk(min(2, scores.shape[1]), dim=-1)
    margins = best.values[:, 0] - best.values[:, 1] if scores.shape[1] > 1 else torch.zeros(len(rows))
    unit = functional.normalize(model.features_of(rows), dim=-1)
    firsts, copies = _apart(model, unit, hashes)
    if len(firsts) > MOST:
        firsts = firsts[margins[firsts].argsort()[:MOST]].sort().values
    known = model.familiar(rows) >= model.trust.known
    weights = (1 - margins) * torch.where(known, 1.0, STRANGE)
    chosen, gains = _cover(unit[firsts], weights[firsts], model.features, number)
    suggestions = []
    for place, gain in zip(chosen, gains, strict=True):
        row = int(firsts[place])
        names = [gallery.names[index] for index in best.indices[row].tolist()]
        suggestions.append(
            Suggestion(
                row, names[0], "".join(names[1:]), margins[row].item(), gain, bool(known[row]), copies.get(row, ())
            )
        )
    return suggestions


def class_needs(model: Model) -> list[ClassNeed]:
    """Lists the classes of a model, those that need more images most first.

    A class needs more images if none of its images could be left out, if it is less accurate than the model beyond
    chance, or if it has less than half of the images of the median class. The others follow, the least accurate first.

    >>> from metarep import Gallery
    >>> rows = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> gallery = Gallery.empty().add(rows, ["moth", "moth", "fly"], ["1.jpg", "2.jpg", "3.jpg"])
    >>> [(each.label, each.why) for each in class_needs(Model(None, {"name": "prototypes"}, gallery))]
    [('fly', 'single'), ('moth', '')]
    """
    gallery, trust = model.gallery, model.trust
    if not len(gallery):
        return []
    counts, middle = gallery.counts.tolist(), median(gallery.counts.tolist())
    taken = confusion(model)
    needs = []
    for index, (name, images) in enumerate(zip(gallery.names, counts, strict=True)):
        own = trust.classes[index] if trust.classes else None
        wrong = {
            gallery.names[other]: round(taken[index, other].item(), 2)
            for other in taken[index].argsort(descending=True, stable=True).tolist()
            if other != index and taken[index, other] > 0
        }
        why = "few" if images < middle / 2 else ""
        if (own is None or not own.tested) and (model.tuning is None or images == 1):
            why = "single"
        elif own is not None and own.needs:
            why = "inaccurate"
        needs.append(ClassNeed(name, images, own.accuracy if own else None, wrong, why))
    rank = ("inaccurate", "single", "few", "")
    return sorted(needs, key=lambda need: (rank.index(need.why), 101 if need.accuracy is None else need.accuracy))


def _apart(
    model: Model, unit: Float[Tensor, "n dim"], hashes: Int8[Tensor, "n length"] | None
) -> tuple[Tensor, dict[int, tuple[int, ...]]]:
    """Returns one row of each group of near copies without an image of the model, and its copies by this row."""
    gallery = model.gallery
    own = no_hashes(len(unit)) if hashes is None else hashes
    groups = near_copies(torch.cat([model.features, unit]), torch.cat([gallery.hashed, own]))
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups[len(gallery) :].tolist()):
        members.setdefault(group, []).append(row)
    learned = set(groups[: len(gallery)].tolist())
    new = [rows for group, rows in members.items() if group not in learned]
    return torch.tensor([rows[0] for rows in new], dtype=torch.long), {rows[0]: tuple(rows[1:]) for rows in new}


def _cover(
    unit: Float[Tensor, "n dim"], weights: Float[Tensor, " n"], labelled: Float[Tensor, "m dim"], number: int
) -> tuple[list[int], list[float]]:
    """Chooses rows one by one, each the one that adds most to the weight that the labelled and chosen rows stand for.

    Returns:
        The chosen rows, and what each adds, as a share of the weight of all.
    """
    stands = unit @ unit.mT
    covered = (unit @ labelled.mT).amax(1)
    total, chosen, gains = weights.sum().clamp_min(1e-12), [], []
    for _ in range(min(number, len(unit))):
        gain = torch.cat([(some - covered).clamp_min_(0) @ weights for some in stands.split(256)])
        gain[chosen] = -1
        row = int(gain.argmax())
        covered = torch.maximum(covered, stands[row])
        chosen.append(row)
        gains.append((gain[row] / total).item())
    return chosen, gains
