"""The action ``metarep index build``: make an index. A sub-parser reads the settings of the chosen backend."""

import argparse

from metarep.cli.flags import add_flags
from metarep.cli.index.shared import add_filling, add_index, add_paths, fill_index, need_paths
from metarep.cli.options import refuse_inside, set_threads
from metarep.cli.parser import Parser
from metarep.data.reading.folder_walk import missing
from metarep.index import INDEXES
from metarep.machine.device import pick_device, pick_precision
from metarep.machine.ranks import rank, ranks
from metarep.search.embedder import Embedder
from metarep.search.image_index import ImageIndex
from metarep.search.sharing import dismiss, help_embed
from metarep.weights.named import load_representation

USAGE = "INDEX FILE|FOLDER ..."
EXAMPLE = """examples:
  metarep index build photos.index PHOTOS --encoder runs/protonet
      continues after an interruption
  metarep index build photos.index PHOTOS --index faiss --kind ivf
"""


def add(parser: Parser) -> None:
    add_index(parser)
    add_paths(parser, "images, or folders of images")
    parser.add_argument(
        "--encoder",
        default="auto",
        metavar="NAME",
        help="efficientnet-lite0, a run folder, a model that ships with metarep, FILE.onnx, and others as in metarep "
        "fit (default: the best installed encoder for photographs)",
    )
    parser.add_parsers_by_flag(
        "--index",
        "index",
        "backend",
        {name: backend_parser(parser.prog, name) for name in INDEXES},
        default="exact",
        metavar="NAME",
        help=f"backend: {', '.join(INDEXES)} (default: exact)",
    )
    add_filling(parser)


def backend_parser(prog: str, name: str) -> Parser:
    """Make the parser of the settings of a backend."""
    parser = Parser(prog=prog, add_help=False)
    parser.set_defaults(own=add_flags(parser, f"settings of --index {name}", INDEXES[name], skip=("device",)))
    return parser


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    need_paths(args, "folders of images")
    refuse_inside(args.index, args.paths)
    representation = load_representation(args.encoder)
    for path in args.paths:  # before an empty index is made
        if not path.exists():
            raise missing("file or folder", path)
    device = pick_device(args.device)
    settings = {name: vars(args)[name] for name in args.own if name in vars(args)}
    precision = pick_precision(args.precision, device)
    if rank():
        help_embed(Embedder(representation, device, precision).embed)
        return 0
    with ImageIndex.create(
        args.index, representation, args.backend, settings, device=device, precision=precision
    ) as index:
        status = fill_index(index, args)
    if ranks() > 1:
        dismiss()
    return status
