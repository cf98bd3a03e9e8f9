"""The command ``metarep export``: write a classifier as an ONNX graph or as a program of torch.export."""

import argparse
from pathlib import Path

from metarep.cli.options import add_output, print_json
from metarep.cli.parser import Parser
from metarep.errors import counted
from metarep.model.folder import ModelFolder

USAGE = "MODEL"
EXAMPLE = """examples:
  metarep export moths --onnx moths.onnx
      for onnxruntime: images (uint8) to probabilities
  metarep export moths --torch-export moths.pt2
      for torch.export.load
"""


def add(parser: Parser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a model folder that metarep fit made, or hf:USER/NAME"
    )
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="write an ONNX graph; needs metarep[onnx]")
    parser.add_argument("--torch-export", type=Path, metavar="FILE", help="write a program of torch.export")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    from metarep.model.export import export_onnx, export_torch

    if not (args.onnx or args.torch_export):
        args.parser.error("nothing to write is given; give --onnx FILE or --torch-export FILE")
    model = ModelFolder.open(args.model).model
    written = []
    for write, path in ((export_onnx, args.onnx), (export_torch, args.torch_export)):
        if path:
            write(model, path)
            written.append(str(path))
    if args.json:
        print_json({"written": written, "classes": model.gallery.names})
    else:
        print("\n".join(f"{path}: {counted(len(model.gallery.names), 'class')}" for path in written))
    return 0
