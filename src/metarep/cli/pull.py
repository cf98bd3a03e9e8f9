"""The command ``metarep pull``: copy a model or a run of the Hugging Face Hub to a folder of your own."""

import argparse
from pathlib import Path

from metarep.cli.options import add_output, print_json
from metarep.cli.parser import Parser
from metarep.errors import counted
from metarep.machine.files import typed
from metarep.weights.hub.fetch import pull

USAGE = "hf:USER/NAME"
EXAMPLE = """examples:
  metarep pull hf:USER/moths --out moths
      a model folder that metarep add and remove can change
  metarep pull hf:USER/moths@REVISION --out moths
"""


def add(parser: Parser) -> None:
    parser.add_argument("name", metavar="hf:USER/NAME", help="the model or run, perhaps with @REVISION")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new folder")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    found = pull(args.name, args.out)
    if args.json:
        print_json({"folder": str(args.out), "name": found.name, "files": found.files})
        return 0
    print(f"{counted(len(found.files), 'file')} of {found.name} in {args.out}")
    kind = "predict" if "encoder.safetensors" in found.files else "evaluate"
    print(f"next: metarep {kind} {typed(args.out)}" + (" IMAGE" if kind == "predict" else ""))
    return 0
