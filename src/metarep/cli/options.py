"""Flags that several commands share, and functions that print results as JSON."""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from textwrap import indent
from typing import Any

from metarep.errors import MetarepError

MOST_THREADS = 1024


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the form of the output."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the result as JSON")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_machine(parser: argparse.ArgumentParser, precision: str = "auto") -> None:
    """Add the flags that choose device, precision and threads; ``precision`` is the default of its flag."""
    group = add_threads(parser)
    group.add_argument("--device", default="auto", help="cpu, cuda, mps, or auto for the fastest (default: auto)")
    choices = ("auto", "float32", "bfloat16")
    group.add_argument(
        "--precision",
        choices=choices,
        default=precision,
        help=f"number format of the encoder's computation (default: {precision})",
    )


def add_threads(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the flag that sets the number of CPU threads, and return its group of flags."""
    group = parser.add_argument_group("machine")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads to use (default: all)")
    return group


def add_data(parser: argparse.ArgumentParser, default: str, size: str) -> None:
    """Add the flags that choose a data set.

    Args:
        parser: the command's parser.
        default: which data set is taken, in words.
        size: at which size its images are read, in words.
    """
    group = parser.add_argument_group("data")
    text = "data set: a name, or name:argument, such as omniglot:lake or folder:PHOTOS"
    group.add_argument("--data", metavar="NAME", help=f"{text} (default: {default})")
    group.add_argument("--size", type=int, metavar="PX", help=f"height and width of the images (default: {size})")
    group.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder that already holds the archives (default: METAREP_DATA)"
    )
    add_reading(group)


def add_reading(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the flags that say how image files are read."""
    parser.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read, and list them")
    add_depth(parser)


def add_grouping(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the flag that says which images of a folder show the same thing."""
    parser.add_argument(
        "--group-subfolders",
        action="store_true",
        help="images of a class that lie in one subfolder show the same thing, such as one specimen: they are left out "
        "together in the test, which would be too easy otherwise (a list says so in a column group)",
    )


def add_depth(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the flag that sets black and white of pictures of more than 8 bits a channel."""
    parser.add_argument(
        "--depth",
        metavar="BITS",
        help="for pictures of more than 8 bits a channel: their number of bits, such as 12, or the values of black and "
        "white, such as 28000:31000 (default: the saved values, or else chosen from all the pictures)",
    )


def set_threads(args: argparse.Namespace) -> None:
    """Apply ``--threads``."""
    if args.threads is None:
        return
    if args.threads < 1:
        raise MetarepError(f"--threads must be at least 1, not {args.threads}")
    if args.threads > MOST_THREADS:  # OpenMP would end the process without a message of ours
        raise MetarepError(f"--threads must be at most {MOST_THREADS}, not {args.threads}")
    import torch

    torch.set_num_threads(args.threads)


def refuse_existing(out: Path | None, kind: str = "folder") -> None:
    """Raise if what is to be made is there already; an empty folder may be filled.

    Nothing that a user names as a new file or folder is replaced. Tables of results, which grow, and files that metarep
    names itself, such as ``labelled.png`` in a model folder, are written anew.

    Args:
        out: the folder or the file; None if there is none.
        kind: what it is, ``folder`` or ``file``.

    Raises:
        MetarepError: it is there.
    """
    if out is not None and out.exists() and (kind == "file" or not out.is_dir() or any(out.iterdir())):
        raise MetarepError(f"{out} is there already", advice=f"choose another {kind} or remove it")


def refuse_inside(out: Path | None, folders: Iterable[str | Path] = (), *, data: Iterable[str] = ()) -> None:
    """Raise if what is to be written would lie among the images that are read, and be read with them the next time.

    A picture there would be one more image, and a folder one more class. Other files, such as a graph or a table, are
    passed over where images are read, so they may lie anywhere. :mod:`metarep.cli.among` does the same for the images
    that a model or an index was made of.

    Args:
        out: the file or folder; None if there is none.
        folders: the folders that are read; files among them are passed over.
        data: the names of the data sets that are read, such as ``folder:PHOTOS``.

    Raises:
        MetarepError: it lies in one of the folders, and nothing on the way to it is hidden.
    """
    from metarep.data.reading.folder_walk import is_hidden, shown

    named = [name.removeprefix("folder:") for name in data if name.startswith("folder:")]
    if out is None:
        return
    for name in (*folders, *named):
        folder = Path(name).expanduser()
        if not folder.is_dir() or folder.resolve() not in (place := out.resolve()).parents:
            continue
        if not any(map(is_hidden, place.relative_to(folder.resolve()).parts)):
            within = folder.resolve() in (here := Path.cwd().resolve(), *here.parents)
            other = shown(os.path.normpath(folder / os.pardir / out.name) if within else out.name)
            raise MetarepError(
                f"{shown(out)} is inside {shown(str(name))}, whose images are read, and would be read with them",
                advice=f"choose a place outside it, as in {other}",
            )


def print_json(content: Any) -> None:  # noqa: ANN401 - anything JSON holds
    """Print a value as JSON, with null for NaN and infinite numbers."""
    print(json.dumps(_as_json(content), indent=2, allow_nan=False))


def _as_json(content: Any) -> Any:  # noqa: ANN401
    """Replace NaN and infinite values by None, because JSON cannot write them. The interval of a single task is NaN."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _as_json(value) for key, value in content.items()}
    return [_as_json(each) for each in content] if isinstance(content, list | tuple) else content


def print_json_list(items: Iterable[Any]) -> None:
    """Print items as a JSON list without holding them in memory.

    Nothing is printed if an item raises an error, so that the output is never half a list.

    >>> print_json_list([1, {"a": 2}])
    [
      1,
      {
        "a": 2
      }
    ]
    """
    with tempfile.SpooledTemporaryFile(16 << 20, "w+", encoding="utf-8") as text:
        for number, item in enumerate(items):
            text.write((",\n" if number else "[\n") + indent(json.dumps(item, indent=2), "  "))
        if not text.tell():
            print("[]")
            return
        text.seek(0)
        shutil.copyfileobj(text, sys.stdout)
    print("\n]")


def picture(text: str) -> Path:
    """Read the path of a picture to write, which is a PNG.

    >>> picture("next.png").name
    'next.png'
    """
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(
            f"{text!r} does not end in .png, and PNG is the kind of picture that is written"
        )
    return Path(text)


def numbers(text: str) -> list[range]:
    """Read ``5``, ``5,20`` or ``5-20`` as ranges. Each item of a list is measured; in a range, tasks vary.

    >>> numbers("1,5-10")
    [range(1, 2), range(5, 11)]
    """
    spans = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        if not (low.isdecimal() and (high or low).isdecimal()) or int(low) < 1 or int(high or low) < int(low):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number, a list (5,20) or a range (5-20)")
        spans.append(range(int(low), int(high or low) + 1))
    return spans
