"""Measure what models promise for new things, where several images show the same thing.

    python benchmarks/groups.py --photos FOLDER [--draws 100] [--data-dir DIR]

The things of a class are learned from several images each, and the model is asked for images of other things:

- ``omniglot``: drawings; a class is an alphabet, and a thing one of its characters, by different hands.
- ``bursts``: a class is one of Caltech-101 (``--photos``, its folder of class folders), and a thing one photograph, of
  which a burst is made: cut, turned, and made lighter or darker, each time by other amounts.

The same galleries are fitted with their groups and without. Rows go into ``results/trust.json``.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageEnhance
from torch import Generator, Tensor
from trust import BACKGROUND, NAME, SIZE, TWICE, half, keep, mean, of_features, promised

from metarep.data.datasets import load_dataset
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.weights.named import load_representation

SHAPES = ((10, 5, 4), (10, 3, 4), (5, 5, 2))  # classes of a gallery, things of each, and images of a thing
CLASSES, MANY, IMAGES = 24, 12, 4  # that are encoded: classes, things of each, and images of a thing
HANDS = 20  # drawings of a character


def bursts(photos: Path, generator: Generator) -> list[Image.Image]:
    """Bursts of photographs, class by class and thing by thing."""
    images = []
    folders = [each for each in sorted(photos.iterdir()) if each.name not in (BACKGROUND, TWICE)]
    order = torch.randperm(len(folders), generator=generator).tolist()
    for number in order[:CLASSES]:
        for file in sorted(folders[number].glob("*.jpg"))[:MANY]:
            images += [shot(Image.open(file).convert("RGB"), generator) for _ in range(IMAGES)]
    return images


def shot(image: Image.Image, generator: Generator) -> Image.Image:
    """One image of a burst: 75 to 95 % of the sides, turned by up to 8 degrees, by 0.8 to 1.25 as light."""
    share, across, down, turn, light = torch.rand(5, generator=generator).tolist()
    turned = image.rotate(16 * turn - 8, resample=Image.Resampling.BILINEAR, expand=False)
    width, height = (round((0.75 + 0.2 * share) * side) for side in image.size)
    left, top = round(across * (image.width - width)), round(down * (image.height - height))
    return ImageEnhance.Brightness(turned.crop((left, top, left + width, top + height))).enhance(0.8 * 1.5625**light)


def drawings(data_dir: Path | None, generator: Generator) -> Tensor:
    """Drawings of characters, alphabet by alphabet and character by character, of four hands each."""
    parts = [load_dataset("omniglot:lake", split, data_dir=data_dir) for split in ("train", "test")]
    images = []
    for split in parts:
        names = split.labels.names
        for alphabet in sorted({name.split("/")[0] for name in names}):
            own = [index for index, name in enumerate(names) if name.split("/")[0] == alphabet][:MANY]
            if len(own) < MANY:
                continue
            for start in split.labels.starts[own].tolist():
                some = start + torch.randperm(HANDS, generator=generator)[:IMAGES]
                images.append(split.bank.pixels(split.labels.rows[some]))
    return torch.cat(images[: CLASSES * MANY])


def measured(rows: Tensor, data: str, base: Model, draws: int) -> Iterator[dict[str, Any]]:
    """Galleries with their groups and without, asked for images of other things.

    ``rows`` are the features, shape ``(classes, things, images, dim)``.
    """
    for ways, things, images in SHAPES:
        generator, table = Generator().manual_seed(5), []
        for _ in range(draws):
            own = rows[torch.randperm(len(rows), generator=generator)[:ways]]
            own = own[:, torch.randperm(rows.shape[1], generator=generator)]
            support, asked = own[:, :things, :images].flatten(0, 2), own[:, things:].flatten(0, 2)
            names = [f"{each:02d}" for each in range(ways) for _ in range(things * images)]
            groups = [f"{each // images}" for each in range(len(names))]
            right, found = 0.0, []
            for given in (groups, None):
                model = base.changed(Gallery.empty().add(support, names, [""] * len(names), groups=given))
                hits = model.scores(asked).argmax(-1) == torch.arange(ways).repeat_interleave(len(asked) // ways)
                right = 100 * hits.double().mean().item()  # the same for both: groups change no answer
                found += promised(model.trust, right)
            table.append((right, *found))
        values = torch.tensor(table, dtype=torch.float64)
        facts = {
            "part": "groups",
            "data": data,
            "ways": ways,
            "shots": f"{ways} of {things} things x {images}",
            "draws": draws,
        }
        facts |= {"real": mean(values[:, 0])}
        for place, name in ((1, ""), (4, "without_")):
            gap = values[:, place] - values[:, 0]
            facts |= {f"{name}promised": mean(values[:, place]), f"{name}bias": mean(gap)}
            facts |= {f"{name}bias_ci95": half(gap), f"{name}coverage": 100 * mean(values[:, place + 1], 4)}
            facts |= {f"{name}width": mean(values[:, place + 2])}
        yield facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--only", choices=("bursts", "omniglot"))
    args = parser.parse_args()
    encoder, base, generator = Model(load_representation(NAME, size=SIZE)), of_features(), Generator().manual_seed(0)
    for data in ("bursts", "omniglot"):
        if data != (args.only or data):
            continue
        images = bursts(args.photos, generator) if data == "bursts" else drawings(args.data_dir, generator).numpy()
        rows = encoder.prepare(images)
        keep(measured(rows.reshape(-1, MANY, IMAGES, rows.shape[-1]), data, base, args.draws))


if __name__ == "__main__":
    main()
