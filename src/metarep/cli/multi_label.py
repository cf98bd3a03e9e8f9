"""Several labels an image on the command line: metarep fit LIST --multi-label, and metarep predict with its model."""

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarep.cli.options import print_json, print_json_list, refuse_existing
from metarep.cli.progress import counter
from metarep.data.class_names import composed
from metarep.data.copies.picture_hash import picture_hash
from metarep.data.reading.depth import Depth
from metarep.data.reading.folder_tree import FolderWarning
from metarep.data.reading.label_sets import SIGN, read_label_sets
from metarep.data.reading.photographs import LeftOut, notice_depth
from metarep.errors import DataError, MetarepError, counted
from metarep.machine.files import typed
from metarep.model.answers import LabelAnswer
from metarep.model.multi_label.folder import MultiLabelFolder
from metarep.model.multi_label.model import MultiLabelModel
from metarep.model.multi_label.scores import measure_labels
from metarep.weights.named import load_representation

BATCH = 64
MOST = 5  # labels that are named in a line


def fit(args: argparse.Namespace) -> int:
    """Make a model of several labels an image from a list."""
    if args.false_alarms != 0.05:
        args.parser.error(
            "--false-alarms is for models of one class an image; leave it out, or leave --multi-label out"
        )
    for flag in ("tune", "unlabelled", "group-subfolders"):
        if getattr(args, flag.replace("-", "_")):
            args.parser.error(f"--{flag} is for models of one class an image; leave it out, or leave --multi-label out")
    refuse_existing(args.out)  # before images are read
    sets = read_label_sets(Path(args.photos))
    warn_of(sets.notes)
    representation = load_representation(args.encoder, arch=args.arch, size=args.size)
    files = [sets.root / file for file in sets.files]
    depth = notice_depth(files, representation.depth | Depth.of(args.depth))
    head = {"name": args.learner} if args.learner else None
    started = time.perf_counter()
    about = {"head": head, "depth": depth, "skip_bad": args.skip_bad, "groups": sets.groups}
    model = MultiLabelModel.fit(representation, files, sets.labels, **about)
    MultiLabelFolder.create(args.out, model)
    seconds = time.perf_counter() - started
    if args.json:
        print_json({"model": str(args.out), "seconds": round(seconds, 2), **model.as_dict()})
        return 0
    height, width = model.learner.encoder.preprocess.size
    print(f"{model.in_words} in {seconds:.1f} s")
    print(f"encoder: {representation.name} at {height} x {width} px")
    print("\n".join(trust_lines(model)))
    print(f"model: {args.out}")
    print(f"next: metarep predict {typed(args.out)} IMAGE")
    return 0


def predict(folder: MultiLabelFolder, args: argparse.Namespace, paths: list[Path]) -> int:
    """Say which labels images have, or with ``--labelled`` how right that is on the list that it is given."""
    model = folder.model
    if args.out:
        args.parser.error("--out draws what is taken for what, which several labels an image do not have; leave it out")
    if args.labelled:
        return _measure(model, args)
    rows = ((path, answer) for some, _, each in _read(model, paths, args)
            for path, answer in zip(some, model.answer(each), strict=True))  # fmt: skip
    if args.json:
        print_json_list(_as_json(path, answer) for path, answer in rows)
    elif args.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("path", "label", "probability"))
        for path, answer in rows:
            values = SIGN.join(f"{value:.4f}" for value in answer.labels.values())
            writer.writerow((path, SIGN.join(answer.labels), values))
    else:
        for path, answer in rows:
            print(_as_text(path, answer, calibrated=model.trust is not None), flush=True)
    return 0


def _read(
    model: MultiLabelModel, paths: list[Path], args: argparse.Namespace
) -> Iterator[tuple[list[Path], Tensor, Tensor]]:
    """Yield the paths, pixels and features of images, a batch at a time."""
    left_out = LeftOut()
    depth = notice_depth(paths, model.depth | Depth.of(args.depth))
    rest = (paths[row] for row in left_out.others())
    with counter(len(paths), "image", quiet=len(paths) <= BATCH) as advance:
        for pixels, rows in model.read(paths, batch=BATCH, depth=depth, left_out=left_out if args.skip_bad else None):
            yield list(islice(rest, len(rows))), pixels, rows
            advance(len(rows))
    left_out.tell(len(paths))


def _measure(model: MultiLabelModel, args: argparse.Namespace) -> int:
    """Print how right the model is on a list of images whose labels are known."""
    if len(args.images) > 1:
        raise MetarepError("--labelled takes one list of images with their labels: path,label|label")
    sets = read_label_sets(Path(args.images[0]))
    warn_of(sets.notes)
    own = {composed(name): index for index, name in enumerate(model.names)}
    unknown = [name for name in sets.names if composed(name) not in own]
    truth = {sets.root / file: labels for file, labels in zip(sets.files, sets.labels, strict=True)}
    learned = {each.numpy().tobytes() for each in model.hashes if bool(each.any())}
    scores, has, repeated = [], [], 0
    for paths, pixels, rows in _read(model, list(truth), args):
        known = [each.numpy().tobytes() in learned for each in picture_hash(pixels)]
        repeated += sum(known)
        kept = [row for row, is_known in enumerate(known) if not is_known]
        scores.append(model.scores(rows[kept]))
        marks = torch.zeros(len(kept), len(model.names), dtype=torch.bool)
        for row, place in enumerate(kept):
            for label in truth[paths[place]]:
                if composed(label) in own:
                    marks[row, own[composed(label)]] = True
        has.append(marks)
    together = torch.cat(scores) if scores else torch.zeros(0, len(model.names))
    if not len(together):
        why = "the model has learned every one of these images" if repeated else "there are no images"
        raise DataError(f"{why}; give new ones to judge it by")
    verdict = measure_labels(model.names, together, model.decide(model.probabilities(together)), torch.cat(has))
    untested = [name for name in model.names if name not in verdict.names]
    if args.json:
        more = {"untested": untested, "unknown": unknown, "in_the_model": repeated}
        print_json({"model": str(args.model), "list": args.images[0], **verdict.as_dict(), **more})
        return 0
    print("\n".join(verdict.lines(f"on {counted(verdict.images, 'image')}")))
    if untested:
        print(f"not tested: {counted(len(untested), 'label')} ({_some(untested)})")
    if unknown:
        print(f"not known to the model: {counted(len(unknown), 'label')} ({_some(unknown)})")
    if repeated:
        print(f"left out: {counted(repeated, 'picture')} that the model has learned")
    for name, facts in sorted(verdict.per_label.items(), key=lambda pair: pair[1]["f1"]):
        print(f"  {name}: F1 {facts['f1']:.1f} %, average precision {facts['average_precision']:.1f} %, "
              f"{counted(int(facts['images']), 'image')}")  # fmt: skip
    return 0


def trust_lines(model: MultiLabelModel) -> list[str]:
    """What a model says of itself, and a line for each of its labels."""
    lines = ["accuracy: unknown; no label has two images with it and two without, so probabilities are not set"]
    if model.trust:
        untested = [name for name in model.names if name not in model.trust.names]
        lines = model.trust.lines("expected, by leaving images out")
        lines += [f"not tested, with a single image of it or without it: {_some(untested)}"] if untested else []
    for name, facts in model.as_dict()["labels"].items():
        expected = facts["average_precision"]
        precision = "" if expected is None else f", average precision {expected:.1f} %"
        lines.append(f"  {name}: {counted(facts['images'], 'image')}{precision}, said from {facts['threshold']:.2f}")
    return lines


def warn_of(notes: tuple[str, ...]) -> None:
    for note in notes:
        warnings.warn(note, FolderWarning, stacklevel=2)


def _as_json(path: Path, answer: LabelAnswer) -> dict[str, Any]:
    labels = [{"label": name, "probability": round(value, 6)} for name, value in answer.labels.items()]
    every = {name: round(value, 6) for name, value in answer.probabilities.items()}
    return {"image": str(path), "labels": labels, "probabilities": every}


def _as_text(path: Path, answer: LabelAnswer, *, calibrated: bool) -> str:
    """The labels of an image, with their probabilities if these come from images that were left out."""

    def shown(name: str) -> str:
        return f"{name} {answer.probabilities[name]:.2f}" if calibrated else name

    name = max(answer.probabilities, key=lambda name: answer.probabilities[name])
    said = ", ".join(map(shown, answer.labels)) or f"no label (likeliest: {shown(name)})"
    return f"{path}: {said}" + ("" if calibrated else "  (how probable: unknown)")


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")
