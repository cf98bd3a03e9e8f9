"""metarep index build INDEX FOLDER: a sub-parser reads the settings of each backend."""

import argparse

from metarep.cli.flags import add_flags
from metarep.cli.index.places import add_filling, add_index, add_places, fill_index, need_places
from metarep.cli.options import set_threads
from metarep.cli.parser import Parser
from metarep.data.reading.folder_walk import missing
from metarep.index import INDEXES
from metarep.machine.device import pick_device, pick_precision
from metarep.search.image_index import ImageIndex
from metarep.weights.named import load_representation

USAGE = "INDEX FILE|FOLDER ..."
EXAMPLE = """examples:
  metarep index build photos.index PHOTOS --encoder runs/protonet    a folder of any size; goes on if interrupted
  metarep index build photos.index PHOTOS --index faiss --kind ivf
"""


def add(parser: Parser) -> None:
    add_index(parser)
    add_places(parser, "images, or folders of images")
    parser.add_argument(
        "--encoder",
        default="auto",
        metavar="NAME",
        help="as in metarep fit: efficientnet-lite0, a run of yours, a model that ships, FILE.onnx "
        "(default: the best of photographs that is installed)",
    )
    parser.add_parsers_by_flag(
        "--index",
        "index",
        "backend",
        {name: backend_parser(parser.prog, name) for name in INDEXES},
        default="exact",
        metavar="NAME",
        help=f"{', '.join(INDEXES)} (default: exact)",
    )
    add_filling(parser)


def backend_parser(prog: str, name: str) -> Parser:
    """The parser of the settings of a backend."""
    parser = Parser(prog=prog, add_help=False)
    parser.set_defaults(own=add_flags(parser, f"settings of --index {name}", INDEXES[name], skip=("device",)))
    return parser


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    need_places(args, "folders of images")
    representation = load_representation(args.encoder)
    for place in args.places:  # before there is an index of nothing
        if not place.exists():
            raise missing("file or folder", place)
    device = pick_device(args.device)
    settings = {name: vars(args)[name] for name in args.own if name in vars(args)}
    precision = pick_precision(args.precision, device)
    with ImageIndex.create(
        args.index, representation, args.backend, settings, device=device, precision=precision
    ) as index:
        return fill_index(index, args)
