"""metarep fit PHOTOS --out MODEL."""

import argparse
import time
import warnings
from pathlib import Path

from metarep.cli.options import add_output, add_threads, print_json, set_threads
from metarep.cli.parser import Parser
from metarep.datasets.folder_tree import FolderTree, scan
from metarep.datasets.options import LeftOutWarning, tell_left_out
from metarep.errors import DataError
from metarep.files import own_folder, typed
from metarep.gallery import Gallery
from metarep.learners import LEARNERS
from metarep.model import Model
from metarep.model_folder import ModelFolder, summary
from metarep.photographs import unreadable
from metarep.pretrained import load_representation

USAGE = "PHOTOS"
EXAMPLE = """examples:
  metarep fit photos --out moths              photos/<class>/<image>, 1 to 50 images a class
  metarep predict moths new.jpg
  metarep fit photos --out moths --encoder efficientnet-lite2 --size 224
  metarep fit letters --out letters --encoder omniglot-protonet
"""
UNREAD = {".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf"}  # photographs
MOST = 5  # doubtful images and confused pairs that are printed


def add(parser: Parser, argv: list[str]) -> None:  # noqa: ARG001 - the same for every command
    parser.add_argument("photos", metavar="PHOTOS", help="a folder that holds one folder of images for each class")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder to make")
    add_encoder(parser, "auto")
    parser.add_argument("--learner", choices=sorted(LEARNERS), help="the head (default: what suits the encoder)")
    parser.add_argument(
        "--false-alarms",
        type=float,
        default=0.05,
        metavar="X",
        help="share of images of known classes that may be taken for none of these (default: 0.05)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read, and list them")
    add_threads(parser)
    add_output(parser)


def add_encoder(parser: argparse.ArgumentParser, default: str | None) -> None:
    """What sees the images."""
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--encoder",
        default=default,
        metavar="NAME",
        help="efficientnet-lite0 to 2, timm:NAME, a run of yours, a model that ships, FILE.onnx, or FILE.safetensors "
        f"with --arch; auto is the best of photographs that is installed (default: {default or 'none'})",
    )
    group.add_argument("--arch", metavar="NAME", help="of bare weights: conv4, resnet12 or efficientnet-lite")
    group.add_argument("--size", type=int, metavar="PX", help="side of the images, for encoders that take any (160)")


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    tree = scan(args.photos)
    if len(tree.classes) < 2:
        only = ", ".join(repr(entry.name) for entry in tree.classes)
        raise DataError(f"{args.photos} holds a single class, {only}; two are needed to tell apart")
    representation = load_representation(args.encoder, arch=args.arch, size=args.size)
    head = {"name": args.learner} if args.learner else None
    model = Model(representation, head, Gallery.empty(), false_alarms=args.false_alarms)
    tell_ignored(tree)
    started = time.perf_counter()
    with ModelFolder.making(args.out, model) as folder:
        learn_tree(folder, tree, skip_bad=args.skip_bad)
    seconds = time.perf_counter() - started
    picture = draw_confusion(folder)
    facts = {"model": str(args.out), "seconds": round(seconds, 2), "picture": picture, **summary(folder.model)}
    if args.json:
        print_json(facts)
    else:
        tell(folder, seconds, picture, chosen=args.encoder == "auto")
    return 0


def learn_tree(folder: ModelFolder, tree: FolderTree, *, skip_bad: bool) -> None:
    """Learn every image of every class."""
    entries = sorted(tree.classes, key=lambda entry: entry.name)  # a tree has them by split
    files = [(tree.root / file, entry.name) for entry in entries for file in entry.files]
    bad = unreadable([path for path, _ in files], folder.representation.encoder.preprocess) if skip_bad else {}
    tell_left_out(bad.values())
    files = [pair for pair in files if pair[0] not in bad]
    if missing := {entry.name for entry in tree.classes} - {label for _, label in files}:
        raise DataError(f"class {min(missing)!r} has no readable image; mend or remove it")
    paths, labels = [path for path, _ in files], [label for _, label in files]
    folder.learn(paths, labels, [str(path) for path in paths], once=True)


def tell_ignored(tree: FolderTree) -> None:
    """A note of what is passed over: pictures of a kind that cannot be read, and those beside the class folders."""
    for kind, count in sorted(tree.ignored.items()):
        what = "image" if kind == "(outside any class)" else f"{kind} file"
        why = "in no class folder" if kind == "(outside any class)" else "of a kind that is not read"
        hint = "; save them as JPEG" if kind in UNREAD else ""
        warnings.warn(f"passed over: {count} {what}{'s' * (count > 1)} {why}{hint}", LeftOutWarning, stacklevel=2)


def draw_confusion(folder: ModelFolder) -> str | None:
    """A picture of what is taken for what, beside the model; none where no image could be left out."""
    from metarep.confusion import draw_confusion as draw

    path = folder.path / "confusion.png"
    with own_folder(path.with_name("confusion.png.part")) as place:  # of two that draw, the last has seen all
        model = folder.model
        if not draw(model, place / path.name):
            return None
        (place / path.name).replace(path)
    if folder.model is not model:
        path.unlink(missing_ok=True)  # of the images as they were
    return str(path)


def tell(folder: ModelFolder, seconds: float, picture: str | None, *, chosen: bool) -> None:
    """What was made, and how far to trust it."""
    model, facts = folder.model, summary(folder.model)
    height, width = facts["size"]
    best = ", the best that is installed" if chosen else ""
    print(f"{len(facts['classes'])} classes, {facts['images']} images in {seconds:.1f} s")
    print(f"encoder: {facts['encoder']} at {height} x {width} px{best}")
    print(trust_line(model))
    for each in facts["suspects"][:MOST]:
        print(f"looks mislabelled: {each['item']} is in {each['label']}, looks like {each['likelier']} "
              f"({each['probability']:.2f})")  # fmt: skip
    if len(facts["suspects"]) > MOST:
        print(f"  and {len(facts['suspects']) - MOST} more: --json lists them")
    if picture:
        print(f"what is taken for what: {picture}")
    print(f"model: {folder.path}\nnext: metarep predict {typed(folder.path)} IMAGE")


def trust_line(model: Model) -> str:
    """Accuracy in a sentence, with where it is from."""
    trust, alone = model.trust, int((model.gallery.counts == 1).sum())
    if len(model.gallery.names) < 2:
        return "accuracy: unknown; there is no second class to tell images from"
    if trust.accuracy is None:
        return "accuracy: unknown; no class has a second image to test with, and the encoder was not measured before"
    if trust.source != "leave-one-out":
        return f"accuracy {trust}, expected: {trust.source}; your images were not tested"
    parts = [f"accuracy {trust}, each of {trust.tested} images left out once"]
    parts += [f"{alone} classes have one image and are not tested"] if alone else []
    if trust.calibration != trust.source:
        few = f"{trust.tested} are too few to set probabilities by"
        parts += [f"{few}, which are those of {trust.calibration}" if trust.calibration else few]
    return "; ".join(parts)
