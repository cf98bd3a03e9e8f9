"""The command ``metarep fit``: make a classifier from a folder of images, or from a list of them."""

import argparse
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from metarep.cli.options import (
    add_grouping,
    add_output,
    add_reading,
    add_threads,
    print_json,
    refuse_inside,
    set_threads,
)
from metarep.cli.parser import Parser
from metarep.cli.trust_lines import class_lines, copy_lines, trust_line
from metarep.data.datasets.options import LeftOutWarning
from metarep.data.reading.depth import Depth
from metarep.data.reading.folder_groups import subfolder_groups
from metarep.data.reading.folder_layout import INNER
from metarep.data.reading.folder_tree import OUTSIDE, FolderTree, warn_of_notes
from metarep.data.reading.formats import HINTS
from metarep.data.reading.labelled_list import find_classes, is_list
from metarep.data.reading.photographs import notice_depth
from metarep.errors import DataError, counted
from metarep.learners import INDUCTIVE
from metarep.machine.files import own_folder, typed
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.summary import summary
from metarep.model.tuning.verdict import Verdict
from metarep.weights.named import LITE, load_representation

USAGE = "PHOTOS"
EXAMPLE = """examples:
  metarep fit photos --out moths
      photos/<class>/<image>, 1 to 50 images of each
  metarep fit labels.csv --out moths
      path,label in each line; paths are relative to labels.csv; a third column, group, says what shows the same thing
  metarep fit photos --out moths --group-subfolders
      photos/<class>/<specimen>/<image>: images of one specimen are left out together in the test
  metarep fit labels.csv --out scenes --multi-label
      path,label|label in each line: an image may have several labels
  metarep predict moths new.jpg
  metarep fit photos --out moths --encoder efficientnet-lite2 --size 224
  metarep fit photos --out moths-tuned --tune
  metarep fit photos --out moths --unlabelled archive/
  metarep fit letters --out letters --encoder omniglot-protonet
"""
MOST = 5  # doubtful images and confused pairs that are printed


def add(parser: Parser) -> None:
    parser.add_argument(
        "photos",
        metavar="PHOTOS",
        help="a folder that holds one folder of images for each class, or a list of labelled images: .csv or .txt",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder to make (required)")
    add_encoder(parser, "auto")
    parser.add_argument(
        "--learner",
        choices=sorted(INDUCTIVE),
        help="how classes are learned from features (default: what suits the encoder)",
    )
    parser.add_argument(
        "--multi-label",
        action="store_true",
        help="an image may have several labels, or none: the list has label|label, or several lines for an image",
    )
    parser.add_argument(
        "--false-alarms",
        type=float,
        default=0.05,
        metavar="X",
        help="largest accepted share of images of known classes that are rejected as none of these (default: 0.05)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="let the encoder learn from the images too, and keep that only if it is better on images left out of it "
        "(minutes; default: off)",
    )
    parser.add_argument(
        "--unlabelled",
        nargs="+",
        metavar="FOLDER",
        help="let the encoder learn from unlabelled images of the same kind as yours (SimCLR; at most 600 of them), "
        "and keep that only if it is better for your labelled ones",
    )
    add_grouping(parser)
    add_reading(parser)
    add_threads(parser)
    add_output(parser)


def add_encoder(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the flags that choose the encoder."""
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--encoder",
        default=default,
        metavar="NAME",
        help="efficientnet-lite0 to 2, timm:NAME, hf:USER/NAME, a run folder, a model that ships with metarep, "
        "FILE.onnx, FILE.pth of DINO, CLIP and other vision transformers, or FILE.safetensors with --arch; auto is the "
        "best installed encoder for photographs "
        f"(default: {default or 'none'})",
    )
    group.add_argument(
        "--arch",
        metavar="NAME",
        help="network of a file of weights: conv4, resnet12, efficientnet-lite; vit, clip or open-clip (with :mean or "
        ":both for other features)",
    )
    group.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="height and width of the images, for encoders that take any size (default: 160)",
    )


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    refuse_inside(args.out, [args.photos, *(args.unlabelled or ())])
    if args.multi_label:
        from metarep.cli.multi_label import fit

        return fit(args)
    tree = find_classes(args.photos)
    groups = _groups(tree, args)
    if len(tree.classes) < 2:
        only = ", ".join(repr(entry.name) for entry in tree.classes)
        add = "images" if is_list(Path(args.photos)) else "a folder of images"
        raise DataError(
            f"{args.photos} holds a single class, {only}, and a classifier needs two; add {add} of another class"
        )
    representation = load_representation(args.encoder, arch=args.arch, size=args.size)
    head = {"name": args.learner} if args.learner else None
    meant = [note for note in tree.notes if not (args.group_subfolders and INNER in note)]
    tell_ignored(replace(tree, notes=tuple(meant)))
    depth = notice_depth([file for file, _ in tree.pairs], representation.depth | Depth.of(args.depth))
    model = Model(representation, head, Gallery.empty(), false_alarms=args.false_alarms, depth=depth)
    started, verdicts = time.perf_counter(), dict[str, Verdict]()
    if args.tune or args.unlabelled:
        from metarep.cli.encoder_learning import learn_encoder, unfinished_of

        model, verdicts = learn_encoder(model, _labelled(tree), groups, args)
    with ModelFolder.making(args.out, model) as folder:
        learn_tree(folder, tree, groups, skip_bad=args.skip_bad)
        folder.calibrate()
    if args.tune or args.unlabelled:
        unfinished_of(args.out).forget()
    seconds = time.perf_counter() - started
    picture = draw_confusion(folder)
    facts = {"model": str(args.out), "seconds": round(seconds, 2), "picture": picture, **summary(folder.model)}
    if args.json:
        facts |= {what: verdict.as_dict() for what, verdict in verdicts.items()}
        print_json({**facts, "held_out": [str(path) for path in tree.held_out]})
    else:
        for what, verdict in verdicts.items():
            print(f"{what}: {verdict}")
        tell(folder, seconds, picture, chosen=args.encoder == "auto", tested_by=tree.held_out[:1])
    return 0


def _groups(tree: FolderTree, args: argparse.Namespace) -> Mapping[Path, str]:
    """The group of each image that has one: that of the list, or the subfolder of its class."""
    if not args.group_subfolders:
        return tree.groups
    if is_list(Path(args.photos).expanduser()):
        args.parser.error(f"{args.photos} is a list, which says in a column group what an image shows; leave "
                          "--group-subfolders out")  # fmt: skip
    return subfolder_groups(tree)


def _labelled(tree: FolderTree) -> list[tuple[Path, str]]:
    """Every image of every class, and the name of its class."""
    return sorted(tree.pairs, key=lambda pair: pair[1])  # a tree sorts them by split first


def learn_tree(
    folder: ModelFolder, tree: FolderTree, groups: Mapping[Path, str] | None = None, *, skip_bad: bool = False
) -> None:
    """Add every image of every class to a model folder; ``groups`` has the group of images that have one."""
    files = _labelled(tree)
    paths, labels = [path for path, _ in files], [label for _, label in files]
    of = [(groups or {}).get(path, "") for path in paths]
    folder.learn(paths, labels, [str(path) for path in paths], once=True, skip_bad=skip_bad, groups=of)
    gallery = folder.model.gallery
    if missing := {gallery.called(label) for label in labels} - set(gallery.names):
        raise DataError(f"class {min(missing)!r} has no readable image", advice="mend or remove it")


def tell_ignored(tree: FolderTree) -> None:
    """Warn of how a folder was read, and of images that are not read: of an unknown kind, or in no class folder."""
    warn_of_notes(tree)
    for kind, count in sorted(tree.ignored.items()):
        what = "image" if kind == OUTSIDE else f"{kind} file"
        why = "in no class folder" if kind == OUTSIDE else "of a kind that is not read"
        hint = f"; {HINTS[kind]}" if kind in HINTS else ""
        warnings.warn(f"passed over: {counted(count, what)} {why}{hint}", LeftOutWarning, stacklevel=2)


def draw_confusion(folder: ModelFolder) -> str | None:
    """Draw the confusion matrix in the model folder. Return its path; None if no image could be left out for a test."""
    from metarep.model.confusion import draw_confusion as draw

    path = folder.path / "confusion.png"
    with own_folder(path.with_name("confusion.png.part")) as partial:  # if two processes draw, the last one has all
        model = folder.model
        if not draw(model, partial / path.name):
            return None
        (partial / path.name).replace(path)
    if folder.model is not model:
        path.unlink(missing_ok=True)  # it is of an older state of the model
    return str(path)


def tell(
    folder: ModelFolder, seconds: float, picture: str | None, *, chosen: bool, tested_by: Sequence[Path] = ()
) -> None:
    """Print what was made, how accurate it is, and which command comes next.

    Args:
        folder: the model folder.
        seconds: how long it took.
        picture: the path of the confusion matrix, if there is one.
        chosen: whether metarep chose the encoder.
        tested_by: folders of labelled images to test the model with.
    """
    model, facts = folder.model, summary(folder.model)
    height, width = facts["size"]
    best = ", the best that is installed" if chosen else ""
    print(f"{model.gallery.in_words} in {seconds:.1f} s")
    print(f"encoder: {facts['encoder']} at {height} x {width} px{best}")
    if chosen and facts["encoder"].partition(",")[0] not in LITE:  # its name may go on with ", tuned"
        print("  for photographs another is far better: pip install 'metarep[pretrained]'")
    print("\n".join([trust_line(model), *class_lines(model), *copy_lines(model)]))
    for each in facts["suspects"][:MOST]:
        print(f"looks mislabelled: {each['item']} is in {each['label']}, looks like {each['likelier']} "
              f"({each['probability']:.2f})")  # fmt: skip
    if len(facts["suspects"]) > MOST:
        print(f"  and {len(facts['suspects']) - MOST} more: --json lists them")
    if picture:
        print(f"what is taken for what: {picture}")
    print(f"model: {folder.path}")
    for test in tested_by:
        print(f"next: metarep predict {typed(folder.path)} {typed(test)} --labelled")
    if not tested_by:
        print(f"next: metarep predict {typed(folder.path)} IMAGE")
