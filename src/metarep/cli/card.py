"""The command ``metarep card``: print the card of a model or a run."""

import argparse
from pathlib import Path

from metarep.cli.options import add_output, print_json
from metarep.cli.parser import Parser
from metarep.model.any_folder import open_folder
from metarep.model.card import model_card
from metarep.model.multi_label.card import labels_card
from metarep.model.multi_label.folder import MultiLabelFolder
from metarep.weights.card import CARD, write_card
from metarep.weights.hub.contents import GALLERY, LABELS
from metarep.weights.hub.fetch import fetch
from metarep.weights.hub.names import is_hub_name

USAGE = "MODEL"
EXAMPLE = """examples:
  metarep card moths
      what it is made for and from, how accurate it is, and how to load it; README.md in the folder is the same
  metarep card runs/protonet
"""


def add(parser: Parser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder or a run folder, or hf:USER/NAME")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    text = text_of(args.model)
    written = not is_hub_name(args.model) and write_card(args.model, text)
    if args.json:
        print_json({"model": str(args.model), "card": text, "written": written})
    else:
        print(text, end="")
    return 0


def text_of(path: Path) -> str:
    """The card of a model folder or a run folder as it is now."""
    from metarep.experiments.card import run_card
    from metarep.weights.hub.contents import SETTINGS

    if is_hub_name(path):
        found = fetch(path)
        return (found.folder / CARD).read_text("utf-8", errors="replace") if CARD in found.files else ""
    if not any((path / name).is_file() for name in (GALLERY, LABELS)) and (path / SETTINGS).is_file():
        return run_card(path)
    folder = open_folder(path)
    if isinstance(folder, MultiLabelFolder):
        return labels_card(folder.model, folder.name)
    model = folder.model
    if len(model.gallery):
        _ = model.trust
    return model_card(model, path.resolve().name)
