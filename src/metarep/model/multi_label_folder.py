"""The folder of a model of several labels an image: an encoder, the labelled images as features, and a card."""

from pathlib import Path

import torch

from metarep.data.copies.picture_hash import LENGTH
from metarep.data.reading.depth import Depth
from metarep.errors import Advice, Call, MetarepError, Slot, one_line
from metarep.machine.files import making, read_tensors, write_tensors
from metarep.model.gallery_checks import check_head
from metarep.model.multi_label import Calibration, MultiLabelModel
from metarep.weights.card import CARD, card_text, encoder_lines, escaped, write_card
from metarep.weights.hub.contents import ENCODER
from metarep.weights.named import load_representation

LABELS = "labels.safetensors"
FORMAT = "labels-1"
PARTS = (ENCODER, CARD, ".lock")


def is_multi_label(path: Path) -> bool:
    """Whether a path is the folder of a model of several labels an image."""
    return (path / LABELS).is_file()


def save_multi_label(model: MultiLabelModel, path: Path) -> None:
    """Write a model to a new folder. The folder appears when it is complete, and nothing is pickled.

    Raises:
        MetarepError: ``path`` exists already, another process is making it, or the model has no encoder.
    """
    if model.representation is None:
        raise MetarepError("the model has no encoder, but a model folder needs one; fit it on images")
    exists = MetarepError(f"{path} is there already", advice="choose another folder")
    busy = MetarepError(
        f"another process is making {path}", advice=["wait until it has ended", "choose another folder"]
    )
    with making(path.resolve(), LABELS, PARTS, exists=exists, busy=busy) as partial:
        representation = model.representation.portable()
        representation.save(partial / ENCODER)
        header = {
            "format": FORMAT,
            "space": representation.digest,
            "head": model.head,
            "depth": model.depth.as_dict(),
            "names": list(model.names),
            "items": list(model.items),
            "calibration": vars(model.calibration),
        }
        write_card(partial, _card(model, path.resolve().name))
        tensors = {"rows": model.rows, "marks": model.marks.to(torch.uint8), "hashes": model.hashes}
        write_tensors(partial / LABELS, tensors, header)


def load_multi_label(path: Path) -> MultiLabelModel:
    """Read a model from the folder that :func:`save_multi_label` wrote.

    Raises:
        MetarepError: ``path`` is no such folder, or it is damaged.
    """
    if not is_multi_label(path):
        fit = Call("MultiLabelModel.fit", "fit", Slot("LIST"), out=Slot("MODEL"), multi_label=True)
        raise MetarepError(
            f"{path} is not a model of several labels an image", advice=Advice("make one with {fit}", fit=fit)
        )
    if not (path / ENCODER).is_file():
        raise MetarepError(f"{path} has lost its {ENCODER}; fit it anew")
    representation = load_representation(path / ENCODER)
    tensors, header = read_tensors(path / LABELS)
    try:
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']}, not {FORMAT}")
        if header["space"] != representation.digest:
            raise ValueError(f"{ENCODER} is not the encoder that its features come from")
        check_head(header["head"], representation.encoder)
        rows, marks, hashes = tensors["rows"], tensors["marks"], tensors["hashes"]
        names, items = header["names"], header["items"]
        if not all(isinstance(text, str) for text in [*names, *items]) or len(set(names)) < len(names):
            raise ValueError("its names are not all texts, or two of them are the same")
        if rows.shape != (len(items), representation.encoder.dim) or not rows.isfinite().all():
            raise ValueError(f"its rows have shape {tuple(rows.shape)}, or are not all finite")
        if marks.shape != (len(items), len(names)) or hashes.shape != (len(items), LENGTH):
            raise ValueError("its tensors and lists have different lengths")
        return MultiLabelModel(
            representation,
            names,
            rows,
            marks.bool(),
            items,
            head=header["head"],
            hashes=hashes.to(torch.int8),
            depth=Depth.of(header["depth"]),
            calibration=_calibration(header["calibration"], len(names)),
        )
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, MemoryError) as error:
        raise MetarepError(
            f"{path / LABELS} is damaged, or of a newer metarep: {one_line(error)}; fit the model anew"
        ) from error


def _calibration(fields: dict[str, object], labels: int) -> Calibration:
    thresholds, tested = fields["thresholds"], fields["tested"]
    if not isinstance(thresholds, list) or not isinstance(tested, list) or {len(thresholds), len(tested)} != {labels}:
        raise ValueError(f"its thresholds are not of {labels} labels")
    scale, shift, *values = (float(value) for value in [fields["scale"], fields["shift"], *thresholds])  # type: ignore[arg-type]
    return Calibration(scale, shift, tuple(values), tuple(bool(each) for each in tested))


def _card(model: MultiLabelModel, name: str) -> str:
    """The card of the folder."""
    counts = model.marks.sum(0).tolist()
    rows = ["| label | images | threshold |", "| --- | ---: | ---: |"]
    rows += [
        f"| {escaped(label)} | {count} | {threshold:.2f} |"
        for label, count, threshold in zip(model.names, counts, model.calibration.thresholds, strict=True)
    ]
    assert model.representation is not None
    loading = [
        "```python",
        "from metarep.model.multi_label_folder import load_multi_label",
        "from pathlib import Path",
        "",
    ]
    loading += [f"model = load_multi_label(Path({name!r}))", 'print(model.answer(model.prepare(["new.jpg"])))', "```"]
    limits = [
        "- Each label is decided by itself; an image may have several, or none.",
        "- Thresholds come from the model's own images when they are left out. Measure them on labelled images of your",
        "  own before you rely on them.",
        "- It does not notice images of other things. It was not tested for decisions about people.",
    ]
    parts = [
        ("Task", [f"Say which of {len(model.names)} labels an image has.", "", *rows]),
        (
            "Data",
            [f"{model.in_words}, labelled by whoever made this model. Licence of the images: unknown to metarep."],
        ),
        ("Encoder", encoder_lines(model.representation)),
        ("Intended use and limits", limits),
        ("How to load it", loading),
    ]
    return card_text(name, ["image-classification", "multi-label"], "image-classification", parts)
