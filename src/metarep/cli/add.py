"""metarep add MODEL CLASS/, or IMAGE --to CLASS."""

import argparse
from pathlib import Path

from metarep.app.limits import clean_name
from metarep.cli.fit import draw_confusion, trust_line
from metarep.cli.options import add_output, add_reading, add_threads, print_json, set_threads
from metarep.cli.parser import Parser
from metarep.cli.predict import find_images
from metarep.datasets.depth import Depth
from metarep.datasets.options import tell_left_out
from metarep.model_folder import ModelFolder, summary
from metarep.photographs import notice_depth, unreadable

USAGE = "MODEL CLASS/..."
EXAMPLE = """examples:
  metarep add moths photos/hawkmoth/            a new class, or more images of one, called after the folder
  metarep add moths new.jpg --to hawkmoth       single images
"""


def add(parser: Parser, argv: list[str]) -> None:  # noqa: ARG001 - the same for every command
    parser.add_argument("model", type=Path, metavar="MODEL", help="what metarep fit made")
    parser.add_argument("images", nargs="+", metavar="CLASS/", help="folders called after their class, or images")
    parser.add_argument("--to", metavar="CLASS", help="the class of these images (default: the name of their folder)")
    add_reading(parser)
    add_threads(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    folder = ModelFolder.open(args.model)
    pairs: list[tuple[Path, str]] = []
    for name in args.images:
        if args.to is None and not Path(name).is_dir():
            args.parser.error(f"{name} is a single image: say of what class it is with --to CLASS")
        label = clean_name(Path(name).resolve().name if args.to is None else args.to)
        pairs += [(path, label) for path in find_images([name])]
    bad = unreadable([path for path, _ in pairs], folder.representation.encoder.preprocess) if args.skip_bad else {}
    tell_left_out(bad.values(), len(pairs))
    pairs = [pair for pair in pairs if pair[0] not in bad]
    paths, labels = [path for path, _ in pairs], [label for _, label in pairs]
    depth = notice_depth(paths, folder.model.depth | Depth.of(args.depth))
    added = len(folder.learn(paths, labels, [str(path) for path in paths], once=True, depth=depth))
    draw_confusion(folder)
    if args.json:
        print_json({"model": str(args.model), "added": added, **summary(folder.model)})
    else:
        model, there = folder.model, len(pairs) - added
        known = f", {there} there already" if there else ""
        print(f"added {added} images{known}; now {len(model.gallery.names)} classes, {len(model.gallery)} images")
        print(trust_line(model))
    return 0
