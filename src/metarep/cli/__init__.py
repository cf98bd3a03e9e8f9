"""The command line: ``metarep COMMAND``. Each command is a module with ``USAGE``, ``EXAMPLE``, ``add(parser)`` and
``run(args)``; one with several actions is a package, in which each action is such a module.
"""

import argparse
import io
import os
import sys
import warnings
from collections.abc import MutableMapping
from functools import partial
from importlib import import_module

from metarep.cli.advice import worded
from metarep.cli.parser import Parser
from metarep.errors import MetarepError

COMMANDS = {
    "quickstart": "train and compare the methods on the embedded data, and write a report",
    "data": "list, fetch and show data sets",
    "methods": "what there is to train",
    "train": "train a method",
    "evaluate": "measure a trained run on classes it has not seen",
    "index": "find images by what they look like: build, add, remove, search, stats, duplicates",
    "search": "find the images of an index that look like an image",
    "reproduce": "train a recipe to its published numbers and write the rows down",
    "fit": "make a classifier of your own images, a few a class, without training",
    "predict": "say what images show, with a classifier that was fitted",
    "add": "teach a classifier more images, or a new class",
    "remove": "make a classifier forget a class",
    "export": "write a classifier as an ONNX or torch graph",
    "serve": "put a classifier behind a page, for people and for programs",
}
EXAMPLE = """first steps:
  metarep quickstart                                 two minutes, no download
  metarep train protonet --data omniglot --out runs/protonet
  metarep evaluate runs/protonet --ways 5,20 --shots 1,5
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors are one line on standard error and exit status 2."""
    argv = sys.argv[1:] if argv is None else argv
    args = argparse.Namespace(command=None, debug=False)
    _bound_spinning(os.environ)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = note = _Notes()
            top_parser().read(argv or ["--help"], args)
            code = args.call(args)
            note.say_again()
            return code
    except MetarepError as error:
        if args.debug:
            raise
        print(f"metarep: {worded(error)}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError) as error:
        if args.debug or not (reason := _outside(error)):
            raise
        print(f"metarep: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = args.command in ("train", "reproduce", "index")
        print(f"metarep: interrupted{'; the same command goes on from there' if goes_on else ''}", file=sys.stderr)
        return 130


def _outside(error: OSError | MemoryError | RuntimeError) -> str:
    """What to say of an error that the machine makes, not metarep: no file, no room, no memory; else nothing."""
    if isinstance(error, BrokenPipeError):  # `metarep ... | head`: nobody reads on
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - or Python complains when it leaves
        return "the output is not read any more"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        return "there is not enough memory for this; ask for smaller images, fewer ways, or fewer tasks"
    return ""


def _bound_spinning(environment: MutableMapping[str, str]) -> None:
    """How long threads of OpenMP wait by spinning, unless somebody has decided that already.

    Without a bound they take the processor from the thread they wait for: beside one busy process a step took 4.6
    times as long. Not spinning at all (``OMP_WAIT_POLICY=passive``) costs about a fifth of the speed on quiet cores,
    for a thread that sleeps must be woken; spinning so briefly costs nothing there. OpenMP reads this when torch is
    first imported, so it is set before that.
    """
    if "OMP_WAIT_POLICY" not in environment and "GOMP_SPINCOUNT" not in environment:
        environment["GOMP_SPINCOUNT"] = "20000"


class _Notes:
    """Shows a warning (an image left out, or in two classes) as one line, the same one once, however often it comes;
    a loud one (hundreds left out) once more at the end, where it is not lost among others.
    """

    def __init__(self) -> None:
        self.told: set[str] = set()
        self.loud: list[str] = []
        self.last = ""

    def __call__(self, message: Warning | str, *_: object) -> None:
        line = f"metarep: {'warning' if getattr(message, 'loud', False) else 'note'}: {worded(message)}"
        if line not in self.told:
            self.told.add(line)
            self.last = line
            self.loud += [line] if getattr(message, "loud", False) else []
            print(line, file=sys.stderr)

    def say_again(self) -> None:
        sys.stdout.flush()
        for line in self.loud:
            if line != self.last or sys.stdout.isatty():
                print(line, file=sys.stderr)


def top_parser() -> Parser:
    """The parser of ``metarep``, with a sub-parser for each command, which is imported when it is named."""
    return Parser(
        fill=_fill_top,
        prog="metarep",
        usage="metarep COMMAND ...",
        description="Learn an image representation from many small tasks.",
        epilog=EXAMPLE,
    )


def parser_of(*names: str) -> Parser:
    """The sub-parser that these words choose, such as ``"train", "protonet"``."""
    parser = top_parser()
    for name in names:
        parser = parser.sub_parsers[name]
    return parser.filled()


def _fill_top(parser: Parser) -> None:
    from metarep.machine.version import __version__

    parser.add_argument("--version", action="version", version=f"metarep {__version__}")
    names = parser.add_names("command", "COMMAND", title="commands (metarep COMMAND --help says more)")
    for name, text in COMMANDS.items():
        names.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", fill=partial(_fill_command, name)
        )


def _fill_command(name: str, parser: Parser) -> None:
    command = import_module(f"metarep.cli.{name}")
    parser.fill_from(command)
