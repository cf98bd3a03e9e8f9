"""The part of ``metarep fit`` in which the encoder learns too: from unlabelled images, and from the labelled ones."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Generator, Tensor

from metarep.cli.images import find_images
from metarep.cli.options import refuse_existing
from metarep.cli.progress import measuring
from metarep.data.reading.photographs import LeftOut, read_images
from metarep.errors import DataError, counted
from metarep.model.model import Model
from metarep.model.tuning.tune import tune_model
from metarep.model.tuning.unfinished import Unfinished
from metarep.model.tuning.unlabelled import LEAST, MOST, adapt_model
from metarep.model.tuning.verdict import Verdict


def learn_encoder(
    model: Model, pairs: list[tuple[Path, str]], groups: Mapping[Path, str], args: argparse.Namespace
) -> tuple[Model, dict[str, Verdict]]:
    """Let the encoder of a model without classes learn from images, as ``--unlabelled`` and ``--tune`` ask for.

    Args:
        model: a model without images.
        pairs: the labelled images, each with the name of its class.
        groups: the group of images that have one.
        args: those of ``metarep fit``.

    Returns:
        The model with the encoder that has learned, or the given one if that was not better; and a verdict for
        ``adapting`` and for ``tuning``, if they were asked for.

    Raises:
        DataError: an image cannot be read, or there are too few unlabelled ones.
    """
    refuse_existing(args.out)  # now, and not after minutes
    images, left_out = _read(model, [path for path, _ in pairs], args.skip_bad)
    kept = [pair for row, pair in enumerate(pairs) if row not in left_out.errors]
    labels, own = [label for _, label in kept], [groups.get(path, "") for path, _ in kept]
    verdicts, unfinished = dict[str, Verdict](), unfinished_of(args.out)
    if args.unlabelled:
        others = _unlabelled(model, {path.resolve() for path, _ in pairs}, args)
        with measuring("adapting to unlabelled images", quiet=args.json) as tell:
            model, verdicts["adapting"] = adapt_model(model, images, labels, others, tell, unfinished, own)
    if args.tune:
        with measuring("tuning", quiet=args.json) as tell:
            model, verdicts["tuning"] = tune_model(model, images, labels, tell, unfinished, own)
    if unfinished.reused:
        parts = counted(len(unfinished.reused), "part")
        print(f"{parts} of the learning had been finished by the same command, which was stopped", file=sys.stderr)
    return model, verdicts


def unfinished_of(out: Path) -> Unfinished:
    """What a command that was killed has finished, in a hidden file beside the model folder that it was to make."""
    return Unfinished(out.with_name(f".{out.name}.unfinished"))


def _unlabelled(model: Model, labelled: set[Path], args: argparse.Namespace) -> UInt8[Tensor, "m c h w"]:
    """The unlabelled images that are learned from, at the size of the encoder. Labelled ones are passed over."""
    paths = [path for path in dict.fromkeys(find_images(args.unlabelled)) if path.resolve() not in labelled]
    some = [paths[row] for row in torch.randperm(len(paths), generator=Generator().manual_seed(0))[:MOST].tolist()]
    if len(some) < LEAST:
        raise DataError(
            f"{', '.join(args.unlabelled)} holds {counted(len(some), 'image')} without a label, and at least {LEAST} "
            "are needed to learn from them; name a folder with more, or leave --unlabelled out"
        )
    images, left_out = _read(model, some, skip_bad=True)
    left_out.tell(len(some))
    return images


def _read(model: Model, paths: list[Path], skip_bad: bool) -> tuple[UInt8[Tensor, "n c h w"], LeftOut]:
    """The images at the size of the encoder, and those that could not be read, if they may be left out."""
    left_out, preprocess = LeftOut(), model.learner.encoder.preprocess
    parts = list(read_images(paths, preprocess, depth=model.depth, left_out=left_out if skip_bad else None))
    none = torch.zeros(0, preprocess.channels, *preprocess.size, dtype=torch.uint8)
    return torch.cat([none, *parts]), left_out
