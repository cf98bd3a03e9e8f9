"""Changes of a model of several labels on the command line: metarep add and metarep remove."""

import argparse
from pathlib import Path

from metarep.cli.images import find_images
from metarep.cli.multi_label import trust_lines, warn_of
from metarep.cli.options import print_json
from metarep.data.class_names import warn_of_look_alikes
from metarep.data.reading.depth import Depth
from metarep.data.reading.label_sets import labels_in, read_label_sets
from metarep.data.reading.labelled_list import is_list
from metarep.data.reading.photographs import notice_depth
from metarep.errors import counted
from metarep.model.multi_label.folder import MultiLabelFolder

MOST = 5  # pictures that are named


def add_to(folder: MultiLabelFolder, args: argparse.Namespace) -> int:
    """Add the images of lists, or images with ``--to LABEL|LABEL``, and measure the model again."""
    before = folder.model
    given = [each for name in args.images for each in _labelled(name, args)]
    images, labels, groups = [each[0] for each in given], [each[1] for each in given], [each[2] for each in given]
    depth = notice_depth(images, before.depth | Depth.of(args.depth))
    items = [str(path) for path in images]
    added = folder.learn(images, labels, items, depth=depth, skip_bad=args.skip_bad, groups=groups)
    warn_of_look_alikes(added.model.names, set(added.labels))
    if args.json:
        known = [{"image": item, "same_as": same} for item, same in added.known]
        facts = {"added": added.new, "known": known, "new": list(added.labels)}
        print_json({"model": str(args.model), **facts, **added.model.as_dict()})
        return 0
    there = f", {len(added.known)} there already" if added.known else ""
    print(f"added {counted(added.new, 'image')}{there}; now {added.model.in_words}")
    for item, same in added.known[:MOST]:
        what = f"{item} was there" if item == same else f"{item} is the same picture as {same}"
        print(f"  {what}, and has the labels of both now")
    if len(added.known) > MOST:
        print(f"  and {len(added.known) - MOST} more")
    if added.labels:
        print(f"new: {', '.join(added.labels)}; earlier images that were not given again count as without")
    print("\n".join(trust_lines(added.model)))
    return 0


def remove_from(folder: MultiLabelFolder, args: argparse.Namespace) -> int:
    """Remove labels. Their images stay."""
    folder.forget(args.classes)
    model = folder.model
    if args.json:
        print_json({"model": str(args.model), "removed": args.classes, **model.as_dict()})
    else:
        print("\n".join([f"now {model.in_words}", *trust_lines(model)]))
    return 0


def _labelled(name: str, args: argparse.Namespace) -> list[tuple[Path, tuple[str, ...], str]]:
    """List the images of one argument, each with its labels and its group."""
    if is_list(Path(name)):
        if args.to is not None:
            args.parser.error(
                f"{name} is a list with the labels of each image, so --to has nothing to say; leave it out"
            )
        sets = read_label_sets(Path(name), none=True)
        warn_of(sets.notes)
        own = zip(sets.files, sets.labels, sets.groups, strict=True)
        return [(sets.root / file, labels, group) for file, labels, group in own]
    if args.to is None:
        args.parser.error(
            f"{name} has no labels, and an image of this model may have several; give a list (path,label|label), or "
            "--to 'LABEL|LABEL' (--to '' for none)"
        )
    labels = labels_in(str(args.to), "--to")
    return [(image, labels, "") for image in find_images([name])]
