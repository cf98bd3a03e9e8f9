"""The command ``metarep index``, with one module for each action."""

from functools import partial

from metarep.cli.index import add as add_action
from metarep.cli.index import build, duplicates, remove, search, stats
from metarep.cli.parser import Parser

USAGE = "ACTION INDEX ..."
EXAMPLE = """examples:
  metarep index build photos.index PHOTOS --encoder runs/protonet
      continues after an interruption
  metarep index add photos.index MORE/
      only new and changed images are read
  metarep index search photos.index IMAGE -k 5 --out sheet.png
  metarep index duplicates photos.index --threshold 0.99
  metarep index remove photos.index PHOTOS/old
"""
ACTIONS = {
    "build": (build, "make an index of images or folders of images"),
    "add": (add_action, "add images that are new or have changed"),
    "remove": (remove, "remove images from an index; their files are kept"),
    "search": (search, "find the images that are most similar to an image"),
    "stats": (stats, "print the number of images, the backend, the size and more"),
    "duplicates": (duplicates, "find copies and images that look alike"),
}


def add(parser: Parser) -> None:
    names = parser.add_names("action", "ACTION", title="actions (metarep index ACTION --help says more)")
    for name, (module, text) in ACTIONS.items():
        description = f"{text[0].upper()}{text[1:]}."
        names.add_parser(name, help=text, description=description, fill=partial(Parser.fill_from, command=module))
    parser.keep_flags_of(names.parsers)
