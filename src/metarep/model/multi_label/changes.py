"""Changes of a model of several labels: more images are added, and labels are removed. Each gives another model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from metarep.data.class_names import clean_name, composed
from metarep.data.reading.depth import Depth
from metarep.errors import MetarepError, NotHereError, unknown
from metarep.model.multi_label.model import MultiLabelModel
from metarep.model.multi_label.rows import first_with_the_picture, marked
from metarep.model.repeats import tell


@dataclass(frozen=True)
class Added:
    """A model with more images, and what became of each of them.

    Args:
        model: the model.
        new: the number of images that it has more.
        known: for each given picture that it had already, its name and that of the earlier one; the earlier one has the
            labels of both now.
        labels: the labels that it has more.
    """

    model: MultiLabelModel
    new: int
    known: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]


def add_images(
    model: MultiLabelModel,
    rows: Float[Tensor, "b dim"],
    hashes: Int8[Tensor, "b length"],
    labels: Sequence[Sequence[str]],
    items: Sequence[str],
    depth: Depth | None = None,
    groups: Sequence[str] | None = None,
) -> Added:
    """Returns a model with more images, of known or of new labels.

    A picture that the model has already is not added a second time; it gets the labels of both. The earlier images
    count as without a new label.

    Args:
        model: the model before.
        rows: the features of the new images.
        hashes: the picture hash of each.
        labels: the labels of each; an empty list if it has none.
        items: the name that people use for each, mostly its path.
        depth: black and white of images of more than 8 bits; None for that of the model.
        groups: the group of each; None if each is by itself.

    Raises:
        BadNameError: a new label cannot be a name.
        MetarepError: a label would be of every image.

    Warns:
        RepeatWarning: a picture that has labels is given without any. It keeps them.

    >>> rows = torch.tensor([[1.0, 0.1], [0.1, 1.0]])
    >>> model = MultiLabelModel.fit(None, rows, [["sun"], ["sea"]], head={"name": "prototypes"})
    >>> more = add_images(model, torch.ones(1, 2), model.hashes[:1], [["sun", "gull"]], ["3.jpg"])
    >>> more.model.in_words, more.labels, more.model.marks[2].tolist()
    ('3 labels, 3 images', ('gull',), [False, True, True])
    """
    names = list(model.names)
    sets = [{names[i] for i in own.nonzero().flatten().tolist()} for own in model.marks]
    every, all_items = torch.cat([model.rows, rows]), [*model.items, *items]
    all_groups = [*model.groups, *(groups or [""] * len(items))]
    first = first_with_the_picture(every, torch.cat([model.hashes, hashes]), len(model.rows))
    kept, known, against = list(range(len(sets))), [], []
    for number, given in enumerate(labels, len(sets)):
        own = {called(names, label) for label in given}
        names += sorted(own - set(names))
        sets.append(own)
        if (same := first[number]) == number:
            kept.append(number)
            continue
        known.append((all_items[number], all_items[same]))
        if sets[same] and not own:
            item, other = all_items[number], all_items[same]
            has = "has" if item == other else f"is the same picture as {other}, which has"
            against.append(f"{item} is given without a label, and {has} {'|'.join(sorted(sets[same]))}")
        sets[same] |= own
    tell("contradicts, and the labels stay: ", "others with labels, and are given without", against)
    after = model.changed(
        names,
        every[kept],
        marked([sets[number] for number in kept], names),
        [all_items[number] for number in kept],
        torch.cat([model.hashes, hashes])[kept],
        depth,
        [all_groups[number] for number in kept],
    )
    return Added(after, len(kept) - len(model.rows), tuple(known), tuple(names[len(model.names) :]))


def remove_labels(model: MultiLabelModel, labels: Sequence[str]) -> MultiLabelModel:
    """Returns a model without some labels. Their images stay, and show what images without the other labels look like.

    Args:
        model: the model before.
        labels: the labels to remove.

    Raises:
        NotHereError: the model has no such label. The message suggests the closest one.
        MetarepError: no label would be left.

    >>> model = MultiLabelModel.fit(None, torch.eye(2), [["sun"], ["sea"]], head={"name": "prototypes"})
    >>> remove_labels(model, ["sun"]).in_words
    '1 label, 2 images'
    """
    gone = {called(model.names, label) for label in labels}
    for label in gone - set(model.names):
        raise NotHereError(str(unknown("label", label, model.names)))
    kept = [index for index, name in enumerate(model.names) if name not in gone]
    if not kept:
        raise MetarepError("no label would be left, and a model needs one", advice="add images of another label first")
    names = [model.names[index] for index in kept]
    return model.changed(names, model.rows, model.marks[:, kept], model.items, model.hashes, groups=model.groups)


def called(names: Sequence[str], given: str) -> str:
    """Returns the label that a user calls ``given``: one of ``names``, or the cleaned name of a new one.

    Raises:
        BadNameError: none is equal, and ``given`` cannot be a name.

    >>> called(["sea"], " sea "), called(["sea"], "sun")
    ('sea', 'sun')
    """
    same = composed(given)
    return next((name for name in names if composed(name) == same), None) or clean_name(given)
