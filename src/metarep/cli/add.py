"""metarep add MODEL CLASS/, or IMAGE --to CLASS."""

import argparse
from pathlib import Path

from metarep.cli.fit import trust_line
from metarep.cli.options import add_machine, add_output, print_json, set_threads
from metarep.cli.parser import Parser
from metarep.cli.predict import find_images
from metarep.model_folder import ModelFolder, summary

USAGE = "MODEL CLASS/..."
EXAMPLE = """examples:
  metarep add moths photos/hawkmoth/            a new class, or more images of one, called after the folder
  metarep add moths new.jpg --to hawkmoth       single images
"""


def add(parser: Parser, argv: list[str]) -> None:  # noqa: ARG001 - the same for every command
    parser.add_argument("model", type=Path, metavar="MODEL", help="what metarep fit made")
    parser.add_argument("images", nargs="+", metavar="CLASS/", help="folders called after their class, or images")
    parser.add_argument("--to", metavar="CLASS", help="the class of these images (default: the name of their folder)")
    add_machine(parser, precision="float32")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    folder = ModelFolder.open(args.model)
    paths: list[Path] = []
    labels: list[str] = []
    for name in args.images:
        found = find_images([name])
        if args.to is None and not Path(name).is_dir():
            args.parser.error(f"{name} is a single image: say of what class it is with --to CLASS")
        paths += found
        labels += [args.to or Path(name).resolve().name] * len(found)
    folder.learn(paths, labels, [str(path) for path in paths])
    if args.json:
        print_json({"model": str(args.model), "added": len(paths), **summary(folder.model)})
    else:
        model = folder.model
        print(f"added {len(paths)} images; now {len(model.gallery.names)} classes, {len(model.gallery)} images")
        print(trust_line(model))
    return 0
