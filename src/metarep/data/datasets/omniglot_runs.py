"""The 20 official one-shot runs of Lake et al. on Omniglot: one drawing of each of 20 characters to learn from."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from re import compile as pattern

import numpy as np
import torch
from jaxtyping import Int

from metarep.data.datasets.archives import open_zip, read_entry
from metarep.data.datasets.cache import cached_images
from metarep.data.datasets.download import fetch
from metarep.data.datasets.lists import split_list
from metarep.data.datasets.omniglot import URL, decode_drawing, shrink
from metarep.data.datasets.options import Options
from metarep.data.images import ImageBank
from metarep.errors import DataError

ABOUT = "Lake's 20 one-shot runs: 20-way 1-shot within an alphabet, 400 answers (Lake et al. 2015, MIT)"
FOLDER, ARCHIVE = "one-shot-classification/", "all_runs.zip"
DIGEST = "ce45e4e810364fb75e0f4a3a518f81c4f06f7fe0d439a2e2d576990f9b9305a8"
RUNS = WAYS = 20
ENTRY = pattern(r"(?:.*/)?(run\d\d/(?:training/class|test/item)\d\d\.png|run\d\d/class_labels\.txt)")
ANSWER = pattern(r"run(\d\d)/test/item(\d\d)\.png\s+run\1/training/class(\d\d)\.png")


@dataclass(frozen=True)
class Runs:
    """The runs as tasks: rows of one bank, in the form of ``TaskIndex``.

    Args:
        bank: 800 drawings. Run ``r`` owns rows ``40 r`` to ``40 r + 39``, its 20 training drawings first.
        support: the row of each training drawing, in order of class.
        query: the row of each test drawing.
        support_y: the class of each training drawing in its run, 0 to 19.
        query_y: the class of each test drawing in its run, 0 to 19.
        keys: the key of each class of each run, ``omniglot/Alphabet/characterNN``. All are of Omniglot's evaluation
            part.
    """

    bank: ImageBank
    support: Int[torch.Tensor, "task support"]
    query: Int[torch.Tensor, "task query"]
    support_y: Int[torch.Tensor, "task support"]
    query_y: Int[torch.Tensor, "task query"]
    keys: tuple[tuple[str, ...], ...]


def load_runs(options: Options) -> Runs:
    """Load the 20 runs, and download and check them first if they are not here.

    Train on ``omniglot:lake`` for these runs. The vinyals split has many of their characters in training.

    Args:
        options: ``size`` defaults to 28.

    Raises:
        DataError: the archive is damaged or cannot be downloaded.
    """
    size = options.size or 28
    images, facts = cached_images(
        f"omniglot-runs-{size}-lanczos", lambda: _decode_runs(fetch(URL + FOLDER + ARCHIVE, ARCHIVE, options), size)
    )
    rows = torch.arange(RUNS * 2 * WAYS).view(RUNS, 2, WAYS)
    classes = torch.arange(WAYS).expand(RUNS, WAYS).contiguous()
    answers = torch.tensor(facts["answers"])
    return Runs(ImageBank(images), rows[:, 0].contiguous(), rows[:, 1].contiguous(), classes, answers, _keys())


def _decode_runs(path: Path, size: int) -> tuple[np.ndarray, dict]:
    """Decode the drawings in the order of ``Runs.bank``, and for each run the class of each test drawing."""
    images = np.empty((RUNS * 2 * WAYS, 1, size, size), dtype=np.uint8)
    digest = sha256()
    answers = [[-1] * WAYS for _ in range(RUNS)]
    with open_zip(path) as archive:
        entries = {match[1]: name for name in archive.namelist() if (match := ENTRY.fullmatch(name))}
        wanted = [
            f"run{run:02d}/{kind}{number:02d}.png"
            for run in range(1, RUNS + 1)
            for kind in ("training/class", "test/item")
            for number in range(1, WAYS + 1)
        ]
        texts = [f"run{run:02d}/class_labels.txt" for run in range(1, RUNS + 1)]
        if missing := [name for name in wanted + texts if name not in entries]:
            raise DataError(
                f"{path} lacks {len(missing)} of its files, such as {missing[0]}; delete it and fetch it again"
            )
        for row, name in enumerate(wanted):
            image = decode_drawing(archive, entries[name])
            digest.update(image.tobytes())
            images[row, 0] = np.asarray(shrink(image, size))
        for name in texts:
            for run, item, chosen in ANSWER.findall(read_entry(archive, entries[name]).decode("ascii", "replace")):
                answers[int(run) - 1][int(item) - 1] = int(chosen) - 1
    digest.update(json.dumps(answers).encode())
    if digest.hexdigest() != DIGEST:
        raise DataError(
            f"{path} does not hold the official runs (digest {digest.hexdigest()}); delete it and fetch it again"
        )
    return images, {"answers": answers}


def _keys() -> tuple[tuple[str, ...], ...]:
    """The keys of the classes of each run, from a list in the package."""
    runs = split_list("omniglot_runs")
    named = (runs[f"run{run:02d}"] for run in range(1, RUNS + 1))
    return tuple(tuple(f"omniglot/{alphabet}/character{n:02d}" for n in numbers) for alphabet, numbers in named)
