"""The card of a model folder: what it was made for and from, how accurate it is, and how it is loaded."""

import hashlib
from collections.abc import Sequence

from jaxtyping import Int8
from torch import Tensor

from metarep.data.class_names import composed
from metarep.errors import counted
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.tuning.verdict import Tuning, Verdict
from metarep.weights.card import card_text, encoder_lines, escaped

MOST = 200  # classes or labels that are listed


def model_card(model: Model, name: str) -> str:
    """Writes the card of a model as Markdown with YAML front matter.

    The accuracy is that of :attr:`Model.trust` if this has been computed; otherwise the card says that it has not.

    Args:
        model: the model.
        name: the name of its folder.

    >>> import torch
    >>> gallery = Gallery.empty().add(torch.eye(2), ["moth", "fly"], ["1.jpg", "2.jpg"])
    >>> text = model_card(Model(None, {"name": "prototypes"}, gallery), "insects")
    >>> "2 classes, 2 images" in text, "1.jpg" in text
    (True, False)
    """
    gallery = model.gallery
    task = f"Classify an image into one of {counted(len(gallery.names), 'class')}, or as none of these."
    encoder = ["- features that were given; the encoder is not known"]
    parts = [
        ("Task", [task, "", *_classes(model)]),
        ("Data", _data(gallery)),
        ("Accuracy", _accuracy(model)),
        ("Encoder", encoder_lines(model.representation) if model.representation else encoder),
        ("Intended use and limits", _limits(model)),
        ("How to load it", _loading(name)),
    ]
    return card_text(name, ["image-classification"], "image-classification", parts)


def gallery_digest(gallery: Gallery) -> str:
    """Returns a digest of the labelled images: the first 12 hexadecimal digits of a SHA-256.

    It depends on the picture hash of each image and on its class, and neither on file names nor on the order.

    >>> import torch
    >>> rows = torch.eye(2)
    >>> one = Gallery.empty().add(rows, ["moth", "fly"], ["1.jpg", "2.jpg"])
    >>> other = Gallery.empty().add(rows, ["fly", "moth"], ["b.jpg", "a.jpg"])
    >>> gallery_digest(one) == gallery_digest(other)
    True
    """
    return images_digest([(gallery.names[index],) for index in gallery.classes.tolist()], gallery.hashed)


def images_digest(labels: Sequence[Sequence[str]], hashes: Int8[Tensor, "n length"]) -> str:
    """Returns a digest of images by their labels, in any order, and their picture hashes.

    >>> import torch
    >>> hashes = torch.tensor([[1], [2]], dtype=torch.int8)
    >>> images_digest([["a", "b"], []], hashes) == images_digest([[], ["b", "a"]], hashes.flip(0))
    True
    """
    texts = ["\0".join(sorted(map(composed, each))) for each in labels]
    pairs = zip(texts, (row.tobytes() for row in hashes.numpy()), strict=True)
    digests = sorted(hashlib.sha256(text.encode() + b"\0" + row).digest() for text, row in pairs)
    return hashlib.sha256(b"".join(digests)).hexdigest()[:12]


def _classes(model: Model) -> list[str]:
    """Returns a table of the classes, with their accuracy if it is known."""
    gallery = model.gallery
    trusts = vars(model)["trust"].classes if "trust" in vars(model) else ()
    rows = ["| class | images | right when left out |", "| --- | ---: | ---: |"]
    for index, (name, images) in enumerate(zip(gallery.names[:MOST], gallery.counts.tolist(), strict=False)):
        own = trusts[index] if trusts else None
        right = "" if own is None or own.accuracy is None else f"{own.accuracy:.0f} % of {own.tested}"
        rows.append(f"| {escaped(name)} | {images} | {right} |")
    more = len(gallery.names) - MOST
    return rows + ([f"| and {counted(more, 'more class')} | | |"] if more > 0 else [])


def _data(gallery: Gallery) -> list[str]:
    return [
        f"{gallery.in_words}, chosen and labelled by whoever made this model. Digest of the labelled images: "
        f"`{gallery_digest(gallery)}`.",
        "Licence of the images: unknown to metarep. The folder `images/`, where there is one, holds each of them",
        "as the encoder saw it, so hand the folder on only if you may hand on the images.",
    ]


def _accuracy(model: Model) -> list[str]:
    trust = vars(model).get("trust")
    if trust is None:
        return ["Not computed for the images that it has now; `metarep card` computes it."]
    if trust.accuracy is None or trust.interval is None:
        return ["Unknown: no class has a second image to test with."]
    low, high = trust.interval
    if trust.source != "leave-one-out":
        return [
            f"Not measured on these classes, of which none has a second image. Elsewhere the encoder reached {low:.0f} "
            f"to {high:.0f} % with one image a class: {escaped(trust.source)}."
        ]
    adapted = [_adapted(model.adapting)] if model.adapting else []
    if model.tuning is not None:
        return adapted + _tuned(
            model.tuning,
            f"{trust.accuracy:.1f} % expected on further images like these (95 % interval {low:.1f} to {high:.1f}),",
        )
    alone = any(not each.tested for each in trust.classes)
    return [
        *adapted,
        f"{trust.accuracy:.1f} % expected on further images like these (95 % interval {low:.1f} to {high:.1f}),",
        f"all classes weighing the same. Protocol: {counted(trust.tested, 'image')} of the model left out and",
        f"classified by a model of the others, one of every class at a time, {_together(model)}; corrected for",
        "the images that are missing then. It was not measured on other images.",
        *(["Classes of one image cannot be tested; what they reach is estimated from the others."] if alone else []),
    ]


def _together(model: Model) -> str:
    """Returns which images were left out together."""
    grouped = sum(map(bool, model.gallery.groups))
    return (
        f"near copies together, and {counted(grouped, 'image')} by their groups" if grouped else "near copies together"
    )


def _adapted(verdict: Verdict) -> str:
    """Returns how an encoder has learned from unlabelled images, and what that does to the accuracy."""
    return (
        f"The encoder first learned from {counted(verdict.unlabelled, 'image')} without labels (SimCLR): {verdict}. "
        f"The same images have chosen it, so the accuracy is lowered by {verdict.discount:.1f} points."
    )


def _tuned(tuning: Tuning, expected: str) -> list[str]:
    """Returns the accuracy of a tuned model, and how it was measured."""
    verdict, names = tuning.verdict, counted(len(tuning.names), "class")
    return [
        expected,
        f"all classes weighing the same. Protocol: {counted(verdict.images, 'image')} of {names} divided into "
        f"{counted(verdict.folds, 'fold')}, near copies together;",
        "each fold was classified by an encoder that was tuned on the others, and by a model of the others; corrected",
        "for the images that are missing then. Later changes are not in it. It was not measured on other images.",
    ]


def _limits(model: Model) -> list[str]:
    return [
        "- Meant for sorting images like those that it has learned into its classes.",
        "- The accuracy holds for images like these. Other cameras, light or places may lower it: measure it on",
        "  labelled images of your own before you rely on it.",
        "- An image of another thing is to be called none of these; at most "
        f"{100 * model.false_alarms:g} % of images of the classes",
        "  are meant to be called so wrongly. A stranger that looks like one of the classes is taken for it.",
        "- It was not tested for decisions about people.",
    ]


def _loading(name: str) -> list[str]:
    return [
        "```python",
        "from metarep import FewShotClassifier",
        f'print(FewShotClassifier.load({name!r}).predict(["new.jpg"]))',
        "```",
    ]
