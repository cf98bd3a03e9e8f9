"""The command ``metarep remove``: remove classes or labels from a classifier."""

import argparse
from functools import reduce
from pathlib import Path

from metarep.cli.fit import draw_confusion
from metarep.cli.options import add_output, print_json
from metarep.cli.parser import Parser
from metarep.cli.trust_lines import trust_line
from metarep.model.any_folder import open_folder
from metarep.model.gallery import Gallery
from metarep.model.multi_label.folder import MultiLabelFolder
from metarep.model.summary import summary

USAGE = "MODEL CLASS..."
EXAMPLE = """examples:
  metarep remove moths hawkmoth
  metarep remove scenes cup
      a label of fit --multi-label; its images stay, without it
"""


def add(parser: Parser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder that metarep fit made")
    parser.add_argument(
        "classes",
        nargs="+",
        metavar="CLASS",
        help="classes to remove, with all their images; or labels, whose images stay",
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    folder = open_folder(args.model)
    if isinstance(folder, MultiLabelFolder):
        from metarep.cli.multi_label_change import remove_from

        return remove_from(folder, args)
    folder.change(lambda gallery: reduce(Gallery.without_class, args.classes, gallery))
    folder.calibrate()
    draw_confusion(folder)
    model = folder.model
    if args.json:
        print_json({"model": str(args.model), "removed": args.classes, **summary(model)})
    else:
        print(f"now {model.gallery.in_words}")
        print(trust_line(model))
    return 0
