"""metarep index build | add | remove | search | stats | duplicates."""

import argparse
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from metarep.cli.options import add_machine, add_output, add_reading, print_json, set_threads
from metarep.cli.parser import Parser, add_flags
from metarep.datasets.folder_walk import missing, shown
from metarep.datasets.options import tell_left_out
from metarep.device import pick_device, pick_precision
from metarep.errors import MetarepError, unknown
from metarep.files import typed
from metarep.index import INDEXES
from metarep.index.contact_sheet import contact_sheet
from metarep.index.duplicates import duplicates
from metarep.index.image_index import ImageIndex
from metarep.pretrained import load_representation
from metarep.wording import counted

USAGE = "build|add|remove|search|stats|duplicates INDEX [FILE|FOLDER ...]"
EXAMPLE = """examples:
  metarep index build photos.index PHOTOS --encoder runs/protonet    a folder of any size; goes on if interrupted
  metarep index add photos.index MORE/                               what is new or has changed
  metarep index search photos.index IMAGE -k 5 --out sheet.png
  metarep index duplicates photos.index --threshold 0.99
  metarep index remove photos.index PHOTOS/old
"""
ACTIONS = ("build", "add", "remove", "search", "stats", "duplicates")
PICTURES = 1000  # of which stats looks for the nearest neighbour


def add(parser: Parser, argv: list[str]) -> None:
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("index", type=Path, metavar="INDEX", help="the folder of the index")
    parser.add_argument("places", type=Path, nargs="*", metavar="FILE|FOLDER", help="images, or folders of images")
    parser.add_argument(
        "--encoder",
        default="auto",
        metavar="NAME",
        help="for build, as in metarep fit: efficientnet-lite0, a run of yours, a model that ships, FILE.onnx "
        "(default: the best of photographs that is installed)",
    )
    add_reading(parser)
    parser.add_argument("--missing", action="store_true", help="for remove: also every image whose file is gone")
    parser.add_argument(
        "--threshold", type=float, default=0.995, metavar="X", help="for duplicates: cosine (default: 0.995)"
    )
    add_search(parser)
    name = next((after for flag, after in pairwise(argv) if flag == "--index"), "exact")
    parser.add_argument(
        "--index",
        dest="backend",
        default="exact",
        metavar="NAME",
        help=f"for build: {', '.join(INDEXES)} (default: exact)",
    )
    known = name in INDEXES
    parser.set_defaults(own=add_flags(parser, f"settings of {name}", INDEXES[name], skip=("device",)) if known else [])
    add_machine(parser, precision="float32")
    add_output(parser)


def add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-k", "--hits", type=int, default=10, metavar="N", help="images to find (default: 10)")
    parser.add_argument("--below", type=Path, metavar="FOLDER", help="only images below this folder")
    parser.add_argument("--out", type=Path, metavar="PNG", help="draw what was found as a contact sheet")


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    needs = {"build": "folders of images", "add": "files or folders", "search": "an image"}.get(args.action)
    if needs and not args.places:
        raise MetarepError(f"index {args.action} needs {needs}: metarep index {args.action} {typed(args.index)} ...")
    return {
        "build": _build,
        "add": _add,
        "remove": _remove,
        "search": search,
        "stats": _stats,
        "duplicates": _duplicates,
    }[args.action](args)


def search(args: argparse.Namespace) -> int:
    """Of ``metarep search`` too."""
    with _open(args) as index:
        found = index.search(args.places, args.hits, args.below, args.depth)
    if args.out:
        contact_sheet(
            [
                [(str(query), ""), *((hit.path, f"{hit.score:.3f}") for hit in hits)]
                for query, hits in zip(args.places, found, strict=True)
            ],
            args.out,
        )
    if args.json:
        print_json(
            [
                {
                    "query": shown(str(query)),
                    "hits": [{"path": shown(hit.path), "score": round(hit.score, 6)} for hit in hits],
                }
                for query, hits in zip(args.places, found, strict=True)
            ]
        )
        return 0
    for query, hits in zip(args.places, found, strict=True):
        print(f"{shown(str(query))}:")
        for hit in hits:
            print(f"  {hit.score:6.3f}  {_near(hit.path)}")
    if args.out:
        print(f"drawn: {args.out}")
    return 0


def _build(args: argparse.Namespace) -> int:
    if args.backend not in INDEXES:
        raise unknown("index", args.backend, INDEXES)
    representation = load_representation(args.encoder)
    for place in args.places:  # before there is an index of nothing
        if not place.exists():
            raise missing("file or folder", place)
    device = pick_device(args.device)
    with ImageIndex.create(
        args.index,
        representation,
        args.backend,
        {name: vars(args)[name] for name in args.own if name in vars(args)},
        device=device,
        precision=pick_precision(args.precision, device),
    ) as index:
        return _fill(index, args)


def _add(args: argparse.Namespace) -> int:
    with _open(args) as index:
        return _fill(index, args)


def _fill(index: ImageIndex, args: argparse.Namespace) -> int:
    watch = None if args.json else _lines()
    added = index.add(args.places, skip_bad=args.skip_bad, depth=args.depth, watch=watch)
    bad = added.bad or []
    tell_left_out(bad, added.new + added.changed + added.known + len(bad))
    if args.json:
        print_json(
            {
                "images": len(index),
                "new": added.new,
                "changed": added.changed,
                "known": added.known,
                "left_out": len(added.bad or []),
            }
        )
        return 0
    more = f", {added.changed:,} changed" if added.changed else ""
    print(f"{counted(len(index), 'image')} in {args.index}: {added.new:,} new{more}, {added.known:,} known already")
    return 0


def _remove(args: argparse.Namespace) -> int:
    if not args.places and not args.missing:
        raise MetarepError(
            f"index remove needs files, folders, or --missing: metarep index remove {typed(args.index)} ..."
        )
    with _open(args) as index:
        gone, left = index.remove(args.places, missing=args.missing), len(index)
    if args.json:
        print_json({"images": left, "removed": gone})
    else:
        print(f"{counted(left, 'image')} in {args.index}: {gone:,} removed")
    return 0


def _stats(args: argparse.Namespace) -> int:
    with _open(args) as index:
        facts = {
            "images": len(index),
            "backend": index.index.name,
            "dim": index.index.dim,
            "encoder": index.index.space,
            "bytes": sum(file.stat().st_size for file in args.index.iterdir() if file.is_file()),
            "missing": sum(not Path(item.path).exists() for item in index.items.items.values()),
            "nearest_neighbour": _quantiles(index),
        }
    if args.json:
        print_json(facts)
        return 0
    for name, value in facts.items():
        text = f"{value:,}" if isinstance(value, int) else value
        if isinstance(value, dict):
            text = ", ".join(f"{share} {score:.3f}" for share, score in value.items()) or "none"
        print(f"{name.replace('_', ' '):<18} {text}")
    return 0


def _quantiles(index: ImageIndex) -> dict[str, float]:
    """How near the nearest other image is, for some of them: a threshold for duplicates lies above that."""
    ids = index.index.ids()
    if len(ids) < 2:
        return {}
    some = ids[:: max(1, len(ids) // PICTURES)]
    scores, found = index.index.search(index.index.vectors(some), 2)
    other = scores[:, 0].where(found[:, 0] != some, scores[:, 1])
    at = {"median": 0.5, "highest 10 %": 0.9, "highest 1 %": 0.99}
    return {name: round(float(other.quantile(share)), 4) for name, share in at.items()}


def _duplicates(args: argparse.Namespace) -> int:
    if not -1 <= args.threshold <= 1:
        raise MetarepError(f"--threshold is a cosine, from -1 to 1, not {args.threshold:g}")
    with _open(args) as index:
        watch = None if args.json else _counter(len(index))
        items = index.items.items
        paths = [Path(items[each].path) for each in index.index.ids().tolist()]
        found = [
            (each.kind, [items[i] for i in each.ids])
            for each in duplicates(index.index, paths, args.threshold, watch=watch)
        ]
    left = 0
    if args.out and found:
        left = contact_sheet(
            [
                [(item.path, kind.removesuffix("s") if kind == "look-alikes" else "copy") for item in group]
                for kind, group in found
            ],
            args.out,
            first="",
        )
    if args.json:
        print_json(
            [
                [{"path": shown(item.path), "digest": item.digest, "kind": kind} for item in group]
                for kind, group in found
            ]
        )
        return 0
    copies = sum(kind == "copies" for kind, _ in found)
    print(f"{counted(copies, 'group')} of copies")
    print(f"{counted(len(found) - copies, 'group')} of look-alikes, with a cosine of {args.threshold:g} or more")
    for number, (kind, group) in enumerate(found, 1):
        same = len(group) - len({item.digest for item in group})
        files = f", {same + 1} of them the same file" if same else ""
        print(f"group {number}: {len(group)} {kind}{files}")
        for item in group:
            print(f"  {_near(item.path)}")
    if args.out and found:
        more = f", without {left:,} group{'' if left == 1 else 's'} more" if left else ""
        print(f"drawn: {args.out}{more}")
    return 0


def _open(args: argparse.Namespace) -> ImageIndex:
    device = pick_device(args.device)
    return ImageIndex(args.index, device=device, precision=pick_precision(args.precision, device))


def _near(path: str) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return shown(str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path)


def _lines(every: float = 2.0) -> Callable[[dict[str, Any]], None]:
    """A line on standard error now and then: how many, how fast, how long still."""
    began = said = time.monotonic()

    def tell(record: dict[str, Any]) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < every:
            return
        said, rate = now, record["embedded"] / (now - began)
        left = f", {(record['total'] - record['done']) / rate:.0f} s left" if rate else ""
        print(f"{record['done']:,} of {counted(record['total'], 'image')}, {rate:.0f} a second{left}", file=sys.stderr)

    return tell


def _counter(total: int) -> Callable[[int], None]:
    tell = _lines()
    return lambda done: tell({"done": done, "total": total, "embedded": done})
