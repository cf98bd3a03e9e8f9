"""The command ``metarep push``: send a model or a run to the Hugging Face Hub, to hand it on."""

import argparse
from dataclasses import asdict
from pathlib import Path

from metarep.cli.card import text_of
from metarep.cli.options import add_output, print_json
from metarep.cli.parser import Parser
from metarep.errors import MetarepError, counted
from metarep.machine.files import typed
from metarep.weights.card import CARD, MARK
from metarep.weights.hub.names import HubName, is_hub_name
from metarep.weights.hub.push import push

USAGE = "MODEL hf:USER/NAME"
EXAMPLE = """examples:
  metarep push moths hf:USER/moths --private
      the encoder, the features of the labelled images with their
      names and classes, and the card; not the images themselves
  metarep push moths hf:USER/moths --images
      also the images, as small as the encoder saw them
  metarep push runs/protonet hf:USER/protonet
It needs metarep[hub], and a token: hf auth login, or HF_TOKEN.
"""


def add(parser: Parser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder or a run folder")
    parser.add_argument("name", metavar="hf:USER/NAME", help="where to; it is made if it does not exist")
    parser.add_argument(
        "--images", action="store_true", help="also send the images of a model, as the encoder saw them (default: no)"
    )
    parser.add_argument(
        "--private", action="store_true", help="only you can see it (default: everybody, if it does not exist yet)"
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    HubName.read(args.name)
    if is_hub_name(args.model):
        raise MetarepError(f"{args.model} is on the Hub already; metarep pull makes a folder of it that can be sent")
    own = (args.model / CARD).read_text("utf-8", errors="replace") if (args.model / CARD).is_file() else MARK
    card = text_of(args.model) if MARK in own and args.model.is_dir() else None
    pushed = push(args.model, args.name, images=args.images, private=args.private, card=card)
    if args.json:
        print_json(asdict(pushed))
        return 0
    for name, size in pushed.files.items():
        if not name.startswith("images/"):
            print(f"  {name}: {size:,} bytes")
    sent = sum(name.startswith("images/") for name in pushed.files)
    if sent:
        print(f"  images/: {counted(sent, 'image')}")
    who = "only you can see it" if pushed.private else "everybody can see it"
    print(f"sent {counted(len(pushed.files), 'file')} to {pushed.url}; {who}")
    if pushed.kept:
        print(
            f"not sent: {counted(pushed.kept, 'image')}; their names, classes and features are in gallery.safetensors"
        )
    kind = "predict" if "encoder.safetensors" in pushed.files else "evaluate"
    print(f"next: metarep {kind} {typed(pushed.name)}" + (" IMAGE" if kind == "predict" else ""))
    return 0
