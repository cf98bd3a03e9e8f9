"""The command ``metarep export``: write a classifier as an ONNX graph, a program of torch.export, or a web page."""

import argparse
import shlex
import sys
from pathlib import Path

from metarep.cli.among import refuse_among_classes
from metarep.cli.options import add_output, print_json, refuse_existing
from metarep.cli.parser import Parser
from metarep.errors import MetarepError, counted
from metarep.model.any_folder import open_folder
from metarep.model.model import Model
from metarep.model.multi_label.model import MultiLabelModel

USAGE = "MODEL"
EXAMPLE = """examples:
  metarep export moths --onnx moths.onnx
      for onnxruntime: images (uint8) to probabilities, of classes
      or, after fit --multi-label, of each label
  metarep export moths --torch-export moths.pt2
      for torch.export.load
  metarep export moths --web moths-page
      a page that classifies in the browser, without a server
"""


def add(parser: Parser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a model folder that metarep fit made, or hf:USER/NAME"
    )
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="write an ONNX graph; needs metarep[onnx]")
    parser.add_argument("--torch-export", type=Path, metavar="FILE", help="write a program of torch.export")
    parser.add_argument(
        "--web", type=Path, metavar="DIR", help="write a static web page that classifies in the browser"
    )
    parser.add_argument(
        "--runtime",
        type=Path,
        metavar="FILE",
        help="for --web: the npm package onnxruntime-web, packed or installed (default: npm fetches it once)",
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    from metarep.model.export import Deployed, export_onnx, export_torch

    if not (args.onnx or args.torch_export or args.web):
        args.parser.error("nothing to write is given; give --onnx FILE, --torch-export FILE or --web DIR")
    if args.runtime and not args.web:
        args.parser.error("--runtime is for the web page; give --web DIR as well")
    folder = open_folder(args.model)
    for path, kind in ((args.onnx, "file"), (args.torch_export, "file"), (args.web, "folder")):
        refuse_existing(path, kind)  # before the first of them is written
    model, written, notes = folder.model, [], list[str]()
    if args.web and isinstance(model, MultiLabelModel):
        raise MetarepError(
            f"{args.model} is a model of several labels an image, and the page of --web shows one class an image",
            advice=["leave --web out", "use --onnx FILE or metarep serve"],
        )
    if isinstance(model, Model):  # a graph is no picture and no folder, and is passed over where images are read
        refuse_among_classes(args.web, model.gallery, "folder")
        Deployed(model)  # refuses a model that has no graph, before anything is said to be written
    for write, path in ((export_onnx, args.onnx), (export_torch, args.torch_export)):
        if path:
            _tell(args, path)
            write(model, path)
            written.append(str(path))
    if args.web and isinstance(model, Model):
        from metarep.app.web.export import export_web

        _tell(args, args.web)
        sizes = export_web(model, folder.name, args.web, args.runtime)
        written.append(str(args.web))
        ours, runtime = sizes["model.onnx"] / 1e6, sizes["ort.wasm"] / 1e6
        notes.append(
            f"{sum(sizes.values()) / 1e6:.1f} MB: {ours:.1f} of the model and {runtime:.1f} of onnxruntime-web; to "
            f"open it, run python -m http.server --directory {shlex.quote(str(args.web))} and go to http://localhost:8000"
        )
    kind, names = ("label", model.names) if isinstance(model, MultiLabelModel) else ("class", model.gallery.names)
    if args.json:
        print_json({"written": written, "labels" if kind == "label" else "classes": names})
    else:
        print("\n".join([f"{path}: {counted(len(names), kind)}" for path in written] + notes))
    return 0


def _tell(args: argparse.Namespace, path: Path) -> None:
    """Say on standard error what is written, because it takes up to half a minute."""
    if not args.json:
        print(f"writing {path} ...", file=sys.stderr, flush=True)
