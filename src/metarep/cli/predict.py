"""The command ``metarep predict``: classify images with a model folder."""

import argparse
import csv
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from metarep.cli.images import find_images
from metarep.cli.options import add_output, add_reading, add_threads, picture, print_json_list, set_threads
from metarep.cli.parser import Parser
from metarep.cli.progress import counter
from metarep.data.reading.depth import Depth
from metarep.data.reading.photographs import LeftOut, notice_depth
from metarep.model.answers import Answer
from metarep.model.any_folder import open_folder
from metarep.model.folder import ModelFolder
from metarep.model.multi_label.folder import MultiLabelFolder

USAGE = "MODEL IMAGE..."
EXAMPLE = """examples:
  metarep predict moths new.jpg
  metarep predict moths camera/ --csv > answers.csv
      every image of a folder, with progress
  metarep predict moths new.jpg --json
      with all probabilities and the nearest images
  metarep predict moths test/ --labelled
      how right it is on test/<class>/<image>
"""
COLUMNS: tuple[str, ...] = ("image", "label", "probability", "known", "label_set", "nearest", "similarity")
BATCH = 64
NEIGHBOURS = 3  # most similar images that are listed


def add(parser: Parser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a model folder that metarep fit made, or hf:USER/NAME"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, or folders of them")
    parser.add_argument("--csv", action="store_true", help="print a table of comma-separated values")
    parser.add_argument(
        "--labelled",
        action="store_true",
        help="the folder holds one folder of images for each class, or a list has the labels; measure how many answers "
        "are right",
    )
    parser.add_argument(
        "--out",
        type=picture,
        metavar="PNG",
        help="with --labelled: the picture of the confusion matrix (default: labelled.png in the model folder)",
    )
    parser.add_argument(
        "--neighbours", type=int, metavar="N", help=f"number of most similar images to list (default: {NEIGHBOURS})"
    )
    add_reading(parser)
    add_threads(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    if args.json and args.csv:
        args.parser.error("--json and --csv are two forms of the same output; give one of them")
    if args.neighbours is not None:
        _check_neighbours(args)
    if args.labelled and args.csv:
        args.parser.error(
            "--labelled measures the answers, and --csv lists them; give one of them, or --labelled with --json"
        )
    if args.out and not args.labelled:
        args.parser.error("--out is the picture of --labelled, which is not given; give both, or leave --out out")
    folder = open_folder(args.model)
    if isinstance(folder, MultiLabelFolder):
        from metarep.cli.multi_label import predict

        if args.neighbours is not None:
            what = f"{args.model} is a model of several labels an image"
            args.parser.error(f"{what}, which compares with no single image; leave --neighbours out")
        return predict(folder, args, [] if args.labelled else find_images(args.images))
    if args.labelled:
        from metarep.cli.labelled import run as judge

        return judge(folder, args)
    paths = find_images(args.images)
    rows = answers(folder, paths, args)
    if args.json:
        print_json_list(as_json(path, answer) for path, answer in rows)
    elif args.csv:
        writer = csv.DictWriter(sys.stdout, list(COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(as_row(path, answer) for path, answer in rows)
    else:
        for path, answer in rows:
            print(as_text(path, answer, calibrated=bool(folder.model.trust.calibration)), flush=True)
    return 0


def _check_neighbours(args: argparse.Namespace) -> None:
    """Refuse ``--neighbours`` where it is too small, or where no such list is printed."""
    if args.neighbours < 1:
        args.parser.error(f"--neighbours must be at least 1, not {args.neighbours}")
    for flag, why in (("labelled", "--labelled counts answers"), ("csv", "--csv has the nearest image alone")):
        if getattr(args, flag):
            args.parser.error(f"{why}, so --neighbours has nothing to say; leave it out")


def answers(folder: ModelFolder, paths: list[Path], args: argparse.Namespace) -> Iterator[tuple[Path, Answer]]:
    """Yield each image and its answer, in order. A progress bar is shown if there are more images than one batch."""
    model = folder.model
    left_out = LeftOut()
    depth = notice_depth(paths, model.depth | Depth.of(args.depth))
    with counter(len(paths), "image", quiet=len(paths) <= BATCH) as advance:
        rest = (paths[row] for row in left_out.others())
        skipped = left_out if args.skip_bad else None
        for _, rows in model.read(
            paths, batch=BATCH, depth=depth, left_out=skipped
        ):  # the next batch is decoded in the background
            yield from zip(islice(rest, len(rows)), model.answer(rows, args.neighbours or NEIGHBOURS), strict=True)
            advance(len(rows))
    left_out.tell(len(paths))


def as_json(path: Path, answer: Answer) -> dict[str, Any]:
    """An answer as ``--json`` prints it, with all probabilities and the nearest images."""
    return {
        "image": str(path),
        "label": answer.label,
        "probability": round(answer.probability, 6),
        "known": answer.known,
        "label_set": list(answer.label_set),
        "probabilities": {name: round(value, 6) for name, value in answer.probabilities.items()},
        "neighbours": [
            {"id": each.id, "item": each.item, "label": each.label, "similarity": round(each.similarity, 4)}
            for each in answer.neighbours
        ],
    }


def as_row(path: Path, answer: Answer) -> dict[str, Any]:
    """An answer as a row of ``--csv``, by column; the label is empty if the image is of no known class."""
    near = answer.neighbours[0] if answer.neighbours else None
    return {
        "image": str(path),
        "label": answer.label if answer.known else "",
        "probability": f"{answer.probability:.4f}",
        "known": answer.known,
        "label_set": "|".join(answer.label_set),
        "nearest": near.item if near else "",
        "similarity": f"{near.similarity:.4f}" if near else "",
    }


def as_text(path: Path, answer: Answer, *, calibrated: bool) -> str:
    """An answer as two lines of text: the class, and the most similar images.

    Args:
        path: the image.
        answer: the answer.
        calibrated: whether probabilities are set by images of known class. Otherwise no number is shown.
    """
    near = ", ".join(f"{each.item} ({each.similarity:.2f})" for each in answer.neighbours)
    if answer.known:
        if not calibrated:
            return f"{path}: {answer.label}  (how probable: unknown)\n    looked at: {near}"
        also = [name for name in answer.label_set if name != answer.label]
        other = f"  or {', '.join(also)}" if also else ""
        return f"{path}: {answer.label}  {answer.probability:.2f}{other}\n    looked at: {near}"
    return f"{path}: none of these (nearest: {answer.label})\n    looked at: {near}"
