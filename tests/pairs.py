"""Pictures with several labels: drawings side by side, lists of them, and a model that has learned such a list."""

import csv
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from serving import ENCODER, drawing

SIZE = 64
KINDS = (("ring",), ("cross",), ("ring", "cross"), ())


def pair(kinds: tuple[str, ...], seed: int) -> Image.Image:
    """A picture with a drawing in each half, or in one of them; for no kind, of a kind that has no label."""
    picture = Image.new("L", (2 * SIZE, SIZE), 255)
    for place, kind in enumerate(kinds or ("comb",)):
        picture.paste(Image.open(BytesIO(drawing(kind, seed, SIZE))).convert("L"), (place * SIZE, 0))
    return picture


def write_list(folder: Path, part: str, seeds: range) -> list[tuple[str, str]]:
    """Write pictures with rings, crosses, both or none to ``folder``, and a list of them to ``PART.csv``.

    Returns:
        The path and the labels of each picture, as the list has them.
    """
    rows = []
    for seed in seeds:
        for kinds in KINDS:
            name = f"{part}-{'-'.join(kinds) or 'none'}-{seed}.png"
            pair(kinds, seed).save(folder / name)
            rows.append((name, "|".join(kinds)))
    write_rows(folder / f"{part}.csv", rows)
    return rows


def write_rows(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])


def learned(folder: Path, seeds: range = range(8)) -> Any:
    """A model folder, ``folder/model``, that has learned ``folder/train.csv``."""
    from metarep.model.multi_label.folder import MultiLabelFolder
    from metarep.model.multi_label.model import MultiLabelModel
    from metarep.weights.named import load_representation

    rows = write_list(folder, "train", seeds)
    images, labels = [str(folder / name) for name, _ in rows], [own.split("|") if own else [] for _, own in rows]
    return MultiLabelFolder.create(folder / "model", MultiLabelModel.fit(load_representation(ENCODER), images, labels))
