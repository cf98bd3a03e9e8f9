"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each, in the two splits that people report."""

import io
import json
from hashlib import sha256
from importlib import resources
from pathlib import Path
from re import compile as pattern
from zipfile import ZipFile

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from metarep.datasets.archives import open_zip, read_entry
from metarep.datasets.cache import cached_images
from metarep.datasets.download import fetch
from metarep.datasets.options import Options
from metarep.datasets.split import Split
from metarep.errors import DataError, unknown
from metarep.images import ImageBank
from metarep.labels import Labels

ABOUT = (
    "1,623 handwritten characters x 20 drawings, 105 x 105, kept at 28 x 28 (Lake et al. 2015, MIT); :vinyals or :lake"
)
URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
ARCHIVES = {  # name: (characters, digest of the decoded pixels)
    "images_background.zip": (964, "1172c636734a347a343ec697dd97c7bf8cf9a0b8585fdc3f06c8e276f3633ecf"),
    "images_evaluation.zip": (659, "e1b2a8d6437057220f345d4babf2b6003a519611bfc141e4d792ed155011bc21"),
}
DRAWINGS = 20
SIDE = 105
# Validation of the lake split: five background alphabets that have no sister script among the other 25 (the two
# Georgian ones, the Japanese and the Canadian syllabaries stay together in training).
LAKE_VALIDATION = ("Armenian", "Burmese_(Myanmar)", "Korean", "N_Ko", "Tagalog")
ENTRY = pattern(r"(?:.*/)?([^/]+/character\d\d)/(\d{4}_\d\d\.png)")


def load(argument: str, split: str, options: Options) -> Split:
    """One part of Omniglot: black ink (0) on white ground (255), uint8 ``(n, 1, size, size)``.

    ``vinyals`` (the default) has 1,028 / 172 / 423 characters and every character four times, turned by 0, 90, 180
    and 270 degrees counter-clockwise, each turn a class of its own (Vinyals et al. 2016, lists of Snell et al. 2017).
    The four share a key, because whoever has seen a character has seen it turned. ``lake`` is the original division:
    30 background alphabets, of which ``LAKE_VALIDATION`` are for validation, and 20 for evaluation; no turns. The
    two splits cut across each other: never test on one what was trained on the other.

    Args:
        argument: ``vinyals``, ``lake`` or nothing.
        split: ``train``, ``val`` or ``test``.
        options: ``size`` defaults to 28; 105 gives the original pixels.
    """
    kind = argument or "vinyals"
    if kind not in ("vinyals", "lake"):
        raise unknown("split of omniglot", kind, ["vinyals", "lake"])
    images, characters = load_characters(options)
    row = {name: i for i, name in enumerate(characters)}
    chosen = _vinyals(split) if kind == "vinyals" else _lake(split, characters)
    drawings = images.view(len(characters), DRAWINGS, *images.shape[1:])[[row[name] for name in chosen]]
    keys = [f"omniglot/{name}" for name in chosen]
    if kind == "vinyals":
        turned = torch.empty(len(chosen), 4, *drawings.shape[1:], dtype=torch.uint8)  # the four turns beside each other
        for k in range(4):
            turned[:, k] = torch.rot90(drawings, k, (-2, -1))
        drawings = turned
        chosen = [f"{name}/rot{90 * k:03d}" for name in chosen for k in range(4)]
        keys = [key for key in keys for _ in range(4)]
    classes = torch.arange(len(chosen)).repeat_interleave(DRAWINGS)
    labels = Labels(classes, tuple(chosen), tuple(keys))
    return Split(ImageBank(drawings.reshape(-1, *images.shape[1:])), labels, f"omniglot:{kind}/{split}")


def load_characters(options: Options) -> tuple[UInt8[Tensor, "n 1 h w"], list[str]]:
    """All 32,460 drawings, memory-mapped, and the names ``Alphabet/characterNN`` of the characters.

    Character ``i`` owns rows ``20 i`` to ``20 i + 19``, by drawer; background first, each part in order of name.
    """
    size = options.size or 28

    def build() -> tuple[np.ndarray, dict]:
        images = np.empty((sum(count for count, _ in ARCHIVES.values()) * DRAWINGS, 1, size, size), dtype=np.uint8)
        characters: list[str] = []
        for name in ARCHIVES:
            start = len(characters) * DRAWINGS
            characters += _decode_archive(fetch(URL + name, name, options), images[start:])
        return images, {"characters": characters}

    images, facts = cached_images(f"omniglot-{size}-lanczos", build)
    return images, facts["characters"]


def _decode_archive(path: Path, out: np.ndarray) -> list[str]:
    """Decodes one archive into ``out``, checks what it holds, and returns its characters in order.

    The check is of the content, not of the file: a copy that was zipped again passes.
    """
    count, expected = ARCHIVES[path.name]
    digest, characters = sha256(), []
    side = out.shape[-1]
    with open_zip(path) as archive:
        found = sorted((*match.groups(), name) for name in archive.namelist() if (match := ENTRY.fullmatch(name)))
        if len(found) != count * DRAWINGS:
            raise DataError(
                f"{path} holds {len(found):,} drawings instead of {count * DRAWINGS:,}; delete it and fetch it again"
            )
        for row, (character, file, name) in enumerate(found):
            image = decode_drawing(archive, name)
            digest.update(f"{character}/{file}".encode() + image.tobytes())
            out[row, 0] = np.asarray(shrink(image, side))
            if row % DRAWINGS == 0:
                characters.append(character)
    if digest.hexdigest() != expected:
        raise DataError(
            f"{path} does not hold Omniglot's pixels (digest {digest.hexdigest()}); delete it and fetch it again"
        )
    return characters


def decode_drawing(archive: ZipFile, name: str) -> Image.Image:
    """One drawing as 8-bit grey: ground 255, ink 0."""
    try:
        image = Image.open(io.BytesIO(read_entry(archive, name)), formats=["PNG"])
        if image.size != (SIDE, SIDE):
            raise DataError(f"{archive.filename}: {name} has {image.size} pixels instead of {SIDE} x {SIDE}")
        return image.convert("L")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(
            f"{archive.filename}: {name} is not a readable PNG ({error}); fetch the archive again"
        ) from error


def shrink(image: Image.Image, side: int) -> Image.Image:
    """The drawing at another size. Lanczos over the whole stroke: nearest-pixel resizing breaks thin strokes apart,
    and a box leaves them ragged or a bilinear filter grey (28 pixels are a stroke of less than one pixel).
    """
    return image if side == SIDE else image.resize((side, side), Image.Resampling.LANCZOS)


def _vinyals(split: str) -> list[str]:
    lists = json.loads((resources.files("metarep.datasets") / "splits" / "omniglot_vinyals.json").read_text("utf-8"))
    return [f"{alphabet}/character{number:02d}" for alphabet, numbers in lists[split].items() for number in numbers]


def _lake(split: str, characters: list[str]) -> list[str]:
    background = ARCHIVES["images_background.zip"][0]
    if split == "test":
        return characters[background:]
    validation = [name.split("/")[0] in LAKE_VALIDATION for name in characters[:background]]
    return [name for name, held_out in zip(characters, validation, strict=False) if held_out == (split == "val")]
