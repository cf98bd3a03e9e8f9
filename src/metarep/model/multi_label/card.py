"""The card of a model of several labels: its labels, how accurate each is, its encoder, and how it is loaded."""

from metarep.errors import counted
from metarep.model.card import MOST, images_digest
from metarep.model.multi_label.model import MultiLabelModel
from metarep.weights.card import card_text, encoder_lines, escaped


def labels_card(model: MultiLabelModel, name: str) -> str:
    """Writes the card of a model as Markdown with YAML front matter.

    Args:
        model: the model.
        name: the name of its folder.

    >>> import torch
    >>> model = MultiLabelModel.fit(None, torch.eye(2), [["sun"], ["sea"]], head={"name": "prototypes"})
    >>> text = labels_card(model, "beach")
    >>> "2 labels, 2 images" in text, "| sea | 1 | 0.50 |  |" in text, "Digest of the labelled images: `" in text
    (True, True, True)
    """
    encoder = ["- features that were given; the encoder is not known"]
    have = [[name for name, mark in zip(model.names, row, strict=True) if mark] for row in model.marks.tolist()]
    data = [
        f"{model.in_words}, chosen and labelled by whoever made this model. Digest of the labelled images: "
        f"`{images_digest(have, model.hashes)}`. Licence of the images: unknown to metarep.",
        "`labels.safetensors` holds their features and names, and not the images.",
    ]
    limits = [
        "- Each label is decided by itself; an image may have several, or none.",
        "- The figures hold for images like these. Measure them on images of your own before you rely on them.",
        "- It does not notice images of other things. It was not tested for decisions about people.",
    ]
    loading = [
        "```python",
        "from metarep import MultiLabelFolder",
        "",
        f"model = MultiLabelFolder.open({name!r}).model",
        'print(model.answer(model.prepare(["new.jpg"])))',
        "```",
    ]
    parts = [
        ("Task", [f"Say which of {counted(len(model.names), 'label')} an image has.", "", *_labels(model)]),
        ("Data", data),
        ("Accuracy", _accuracy(model)),
        ("Encoder", encoder_lines(model.representation) if model.representation else encoder),
        ("Intended use and limits", limits),
        ("How to load it", loading),
    ]
    return card_text(name, ["image-classification", "multi-label"], "image-classification", parts)


def _labels(model: MultiLabelModel) -> list[str]:
    """Returns a table of the labels."""
    rows = ["| label | images | said from | average precision when left out |", "| --- | ---: | ---: | ---: |"]
    labels = model.as_dict()["labels"]
    for name, facts in list(labels.items())[:MOST]:
        precision = facts["average_precision"]
        right = "" if precision is None else f"{precision:.1f} %"
        rows.append(f"| {escaped(name)} | {facts['images']} | {facts['threshold']:.2f} | {right} |")
    more = len(labels) - MOST
    return rows + ([f"| and {counted(more, 'more label')} | | | |"] if more > 0 else [])


def _accuracy(model: MultiLabelModel) -> list[str]:
    if model.trust is None:
        return ["Unknown: no label has two images with it and two without. Its probabilities are not set by any test."]
    return [
        *(f"- {line}" for line in model.trust.lines("expected, by leaving images out")),
        "",
        "Protocol: ten folds of cross-validation over the images of the model, near copies together. The thresholds",
        "are chosen on the same images, so the F1 are a little too high. It was not measured on other images.",
    ]
