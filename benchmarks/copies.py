"""Measure how many artificial copies of Caltech-101's photographs are found, and how many other pairs.

    python benchmarks/copies.py FOLDER_OF_CLASSES --split split.json --part test --out results/copies.json

FOLDER_OF_CLASSES holds a folder a class. Of the classes of the part (the thresholds were chosen on ``train``), 400
pictures get a copy of each kind. A copy is found if the pair is a copy for
:func:`metarep.data.copies.near_copies.likeness` and would have been looked at. Pairs among the originals are listed
with their files: Caltech-101 holds real copies, so which of them are false is told by looking at them (``--sheet``).
"""

import argparse
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from metarep.data.copies.near_copies import ALIKE, OUTLINE, _candidates, likeness
from metarep.data.copies.picture_hash import picture_hash
from metarep.data.copies.picture_match import outline
from metarep.data.drawing.contact_sheet import contact_sheet
from metarep.data.reading.decode import decode
from metarep.data.reading.photographs import STRETCH
from metarep.weights.named import load_representation

PICTURES, SIZE = 400, 160


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def cut(picture: Image.Image, corner: bool) -> Image.Image:
    across, down = 0.05 * picture.width, 0.05 * picture.height
    if corner:
        return picture.crop((round(across), round(down), picture.width, picture.height))
    box = (round(across / 2), round(down / 2))
    return picture.crop((*box, picture.width - box[0], picture.height - box[1]))


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "saved again, JPEG q50": lambda picture: jpeg(picture, 50),
    "half the size": lambda picture: jpeg(
        picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
    ),
    "5 % cut off, centre kept": lambda picture: jpeg(cut(picture, False)),
    "5 % cut off, a corner kept": lambda picture: jpeg(cut(picture, True)),
    "mirrored": lambda picture: jpeg(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--part", nargs="+", default=["val", "test"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    split = json.loads(args.split.read_text())
    files = sorted(file for part in args.part for name in split[part] for file in (args.folder / name).glob("*.jpg"))
    encoder = load_representation("efficientnet-lite0").encoder.eval()

    def look(sources: list[Path] | list[bytes]) -> tuple[Tensor, Tensor]:
        hashes, features = [], []
        for start in range(0, len(sources), 32):
            some = sources[start : start + 32]
            pixels = [decode(each, size=(SIZE, SIZE), channels=3, name="a picture", stretch=STRETCH) for each in some]
            images = torch.from_numpy(np.stack(pixels))
            hashes.append(picture_hash(images))
            with torch.no_grad():
                features.append(functional.normalize(encoder(images).float(), dim=1))
        return torch.cat(hashes), torch.cat(features)

    hashes, features = look(files)
    order = list(range(len(files)))
    random.Random(0).shuffle(order)
    some = order[:PICTURES]
    found = {}
    for kind, make in KINDS.items():
        copies, rows = look([make(Image.open(files[each]).convert("RGB")) for each in some])
        cosines = (rows * features[some]).sum(1)
        plain, mirrored = outline(hashes[some]), outline(hashes[some], mirrored=True)
        seen = torch.maximum((outline(copies) * plain).sum(1), (outline(copies) * mirrored).sum(1)) >= OUTLINE
        both = (likeness(copies, hashes[some], cosines) >= 1) & (seen | (cosines >= ALIKE))
        found[kind] = {
            "found": round(100 * float(both.float().mean()), 1),
            "cosine 0.995": round(100 * float((cosines >= 0.995).float().mean()), 1),
            "cosine 0.9": round(100 * float((cosines >= 0.9).float().mean()), 1),
        }
        print(f"{kind:<28}" + "".join(f"{name} {value:5.1f} %   " for name, value in found[kind].items()), flush=True)
    one, other = _candidates(features, hashes, None)
    sure = likeness(hashes[one], hashes[other], (features[one] * features[other]).sum(1))
    pairs = [(files[one[row]], files[other[row]]) for row in sure.argsort().tolist() if sure[row] >= 1]
    print(f"{len(pairs)} pairs among {len(files):,} originals")
    if args.sheet and pairs:
        contact_sheet([[(str(a), ""), (str(b), "")] for a, b in pairs], args.sheet, first="")
    if args.out:
        named = [[str(each.relative_to(args.folder)) for each in pair] for pair in pairs]
        facts = {"pictures": len(files), "copies_a_kind": len(some), "found": found, "pairs_of_originals": named}
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
