"""The command ``metarep data``: list the data sets, prepare one, check it, or draw tasks of it."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from metarep.cli.options import add_output, add_reading, picture, print_json, refuse_existing, refuse_inside
from metarep.cli.parser import Parser
from metarep.cli.progress import counting
from metarep.data.banks.manifest import Manifest
from metarep.data.banks.workers import following
from metarep.data.datasets import DATASETS, PARTS, SPLITS, about, load_parts
from metarep.data.datasets.bank import write
from metarep.data.datasets.cache import Used, watching
from metarep.data.datasets.omniglot_runs import load_runs
from metarep.data.datasets.options import Options
from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.errors import DataError, counted, plural

USAGE = "list|prepare|verify|show ..."
EXAMPLE = """examples:
  metarep data list
  metarep data prepare omniglot
      download, check and cache it (or read it from --data-dir)
  metarep data show glyphs --out tasks.png
      a picture of sampled tasks
  metarep data prepare folder:PHOTOS --skip-bad
  metarep data prepare folder:PHOTOS --out photos.bank
      and write it as a bank, which opens in seconds as bank:photos.bank
  metarep data verify folder:PHOTOS
"""


ACTIONS = {
    "list": "list the data sets",
    "prepare": "download, check and cache a data set",
    "verify": "read what was prepared, and check it against its digests",
    "show": "draw a picture of sampled tasks",
}


def add(parser: Parser) -> None:
    names = parser.add_names("action", "ACTION", title="actions (metarep data ACTION --help says more)")
    parts = {
        "list": (_add_list, _list),
        "prepare": (_add_prepare, _prepare),
        "verify": (_add_reading, _verify),
        "show": (_add_show, _show),
    }
    for name, (fill, run) in parts.items():
        text, takes = ACTIONS[name], "" if name == "list" else " NAME"
        description = f"{text[0].upper()}{text[1:]}."
        usage = f"{parser.prog} {name} [flags]{takes}"
        names.add_parser(name, help=text, description=description, usage=usage, fill=fill, run=run)
    parser.keep_flags_of(names.parsers)


def _add_list(parser: Parser) -> None:
    add_output(parser)


def _add_prepare(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write it as a bank, to be opened as bank:DIR")
    _add_reading(parser)


def _add_reading(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"{', '.join(DATASETS)}; or name:argument")
    parser.add_argument(
        "--size", type=int, metavar="PX", help="height and width of the images (default: the data set's own)"
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder that already holds the archives (default: METAREP_DATA)"
    )
    add_reading(parser)
    add_output(parser)


def _add_show(parser: Parser) -> None:
    parser.add_argument("--split", default="test", help=f"{', '.join(SPLITS)} (default: test)")
    parser.add_argument("--out", type=picture, metavar="PNG", help="the picture to write (default: NAME-tasks.png)")
    parser.add_argument("--ways", type=int, default=5, metavar="N", help="classes in a task (default: 5)")
    parser.add_argument("--shots", type=int, default=1, metavar="N", help="support images of each class (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the sampled tasks (default: 0)")
    _add_reading(parser)


def _list(args: argparse.Namespace) -> int:
    rows = {name: about(name) for name in DATASETS}
    if args.json:
        print_json(rows)
    else:
        print("\n".join(f"{name:<14} {text}" for name, text in rows.items()))
    return 0


def _need_name(args: argparse.Namespace) -> None:
    if args.name is None:
        args.parser.error(f"data {args.action} needs the name of a data set: {', '.join(DATASETS)}")


def _prepare(args: argparse.Namespace) -> int:
    _need_name(args)
    refuse_inside(args.out, data=[args.name])
    facts: dict[str, dict[str, object]] = {}
    with _reading(args) as used:
        if args.name == "omniglot-runs":
            runs = load_runs(Options(size=args.size, data_dir=args.data_dir))
            facts["runs"] = {"images": len(runs.bank), "tasks": len(runs.support)}
        else:
            parts = _parts(args)
            facts = {split: _facts(part) for split, part in parts.items()}
            if args.out:
                write(list(parts.values()), args.out)
    if args.json:
        print_json(facts)
        return 0
    for split, fact in facts.items():
        print(f"{args.name} {split}: " + ", ".join(f"{value} {_noun(value, name)}" for name, value in fact.items()))
    for folder, how in used:
        print(f"{how}: {folder}")
    if args.out:
        print(f"written: {args.out}; open it as bank:{args.out}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    _need_name(args)
    with _reading(args) as used:
        _parts(args)
    rows = {str(folder): list(Manifest.read(folder).damaged(folder)) for folder, _ in used}
    for folder, shards in rows.items():
        bad = [shard.file for shard, damaged in shards if damaged]
        if bad:
            raise DataError(
                f"{folder} is damaged: {len(bad)} of {counted(len(shards), 'file')} changed after writing "
                f"({', '.join(bad[:3])}); remove the folder and prepare it again"
            )
        if not args.json:
            print(f"{folder}: {counted(len(shards), 'file')} as written")
    if args.json:
        print_json({folder: len(shards) for folder, shards in rows.items()})
    return 0


@contextmanager
def _reading(args: argparse.Namespace) -> Iterator[Used]:
    """Context that shows how many images are decoded, and yields the cache folders that are used."""
    with watching() as used, counting("image", quiet=args.json) as tell, following(tell):
        yield used


def _parts(args: argparse.Namespace) -> dict[str, Split]:
    return dict(zip(PARTS, _load(args, *PARTS), strict=True))


def _facts(split: Split) -> dict[str, object]:
    counts, (height, width) = split.labels.counts, split.bank.size
    each = str(int(counts.min())) if counts.min() == counts.max() else f"{int(counts.min())}-{int(counts.max())}"
    return {
        "classes": len(split.labels.names),
        "images": len(split.bank),
        "a class": each,
        "px": f"{height}x{width}x{split.bank.channels}",
        "(digest)": split.labels.digest,
    }


def _noun(value: object, name: str) -> str:
    """The noun after a count: ``classes``, or ``class`` after 1."""
    one = {"classes": "class", "images": "image", "tasks": "task"}.get(name, name)
    return plural(int(value == 1), one, name)


def _show(args: argparse.Namespace) -> int:
    _need_name(args)
    from metarep.data.drawing.task_sheet import task_picture

    out = args.out or Path(f"{args.name.partition(':')[0]}-tasks.png")
    refuse_inside(out, data=[args.name])
    refuse_existing(args.out, "file")
    [split] = _load(args, args.split)
    generator = torch.Generator().manual_seed(args.seed)
    queries = max(1, min(5, int(split.labels.counts.min()) - args.shots))
    tasks = draw_tasks(split.labels, 3, ways=args.ways, shots=args.shots, queries=queries, generator=generator)
    task_picture(split.bank, split.labels, tasks, out)
    if args.json:
        print_json({"picture": str(out), "digest": tasks.digest})
    else:
        print(f"three tasks of {split.name}: {out}")
    return 0


def _load(args: argparse.Namespace, *splits: str) -> list[Split]:
    given = {"size": args.size, "data_dir": args.data_dir, "skip_bad": args.skip_bad, "depth": args.depth}
    return load_parts(args.name, splits, **given)
