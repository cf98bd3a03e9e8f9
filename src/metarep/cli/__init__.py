"""The command line, ``metarep COMMAND``: reads the arguments, runs one command and words its errors.

Each command is a module with ``USAGE``, ``EXAMPLE``, ``add(parser)``, which adds its flags, and ``run(args)``, which
runs it and returns the exit status. ``index`` is a package, in which each action is such a module.
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
from metarep.cli.torchrun import Voice, processes
from metarep.errors import MetarepError

COMMANDS = {
    "quickstart": "train and compare several methods on the embedded data; write a report",
    "data": "list, download and show data sets",
    "methods": "list the training methods and their recipes",
    "train": "train an encoder by one of the methods",
    "sweep": "try many settings of a method, and choose among them on validation classes",
    "evaluate": "measure the accuracy of a trained run on tasks of unseen classes",
    "compare": "train and measure several methods and runs on the same tasks; write a report",
    "merge": "merge the shards of a measurement that several jobs have made",
    "index": "build and use an index of images, to find similar images and duplicates",
    "search": "find the images of an index that are most similar to an image",
    "reproduce": "train a recipe, compare with its published results and write them to a table",
    "fit": "make a classifier from a few images of each class, without training",
    "predict": "classify images with a classifier that metarep fit made",
    "add": "add images or a new class to a classifier",
    "remove": "remove a class from a classifier",
    "suggest": "say which unlabelled images to label next, and which classes need more",
    "card": "print the card of a model or a run: task, data, accuracy, licences, how to load it",
    "push": "send a model or a run to the Hugging Face Hub, to hand it on",
    "pull": "copy a model or a run of the Hugging Face Hub to a folder of your own",
    "export": "write a classifier as an ONNX graph or a torch program",
    "serve": "serve a classifier over HTTP, as a web page and an API",
}
EXAMPLE = """first steps:
  metarep quickstart                                 two minutes, no download
  metarep train protonet --data omniglot --out runs/protonet
  metarep evaluate runs/protonet --ways 5,20 --shots 1,5
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the arguments without the name of the program; None for those of the process.

    Returns:
        0 if the command succeeded, 2 after an error, which is one line on standard error, 130 after
        Ctrl-C, and 141 without a message if the reader of the output has closed the pipe.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = argparse.Namespace(command=None, debug=False)
    _bound_spinning(os.environ)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # do not fail on a name that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    voice = Voice(None)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = note = _Notes()
            top_parser().read(argv or ["--help"], args)
            with processes(f"{args.command} {getattr(args, 'action', '')}".strip()) as voice:
                code = args.call(args)
                note.say_again()
            return code
    except MetarepError as error:
        if args.debug:
            raise
        voice.say(f"metarep: {worded(error)}")
        return 2
    except BrokenPipeError:  # the reader has closed the pipe, as in `metarep ... | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - else Python reports an error at exit
        return 141  # as of a program that SIGPIPE ends
    except (OSError, MemoryError, RuntimeError) as error:
        if voice.lost_another(error):
            voice.say_of_others()
            return 2
        if args.debug or not (reason := _outside(error)):
            raise
        voice.say(f"metarep: {reason}")
        return 2
    except KeyboardInterrupt as error:
        goes_on = args.command in ("train", "reproduce", "index", "sweep", "compare")
        goes_on |= args.command == "fit" and _has_finished_a_part(args)
        plain = f"interrupted{'; the same command goes on from there' if goes_on else ''}"
        voice.say(f"metarep: {error if error.args else plain}")
        return 130


def _has_finished_a_part(args: argparse.Namespace) -> bool:
    """Whether a fit that was interrupted has left parts of its tuning, from which the same command goes on."""
    from metarep.cli.encoder_learning import unfinished_of

    path = unfinished_of(args.out).path if getattr(args, "out", None) else None
    return path is not None and path.is_file()


def _outside(error: OSError | MemoryError | RuntimeError) -> str:
    """The message for an error of the machine, such as a missing file or a lack of memory; empty for other errors."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        return "there is not enough memory for this; ask for smaller images, fewer ways, or fewer tasks"
    return ""


def _bound_spinning(environment: MutableMapping[str, str]) -> None:
    """Limit how long OpenMP threads spin while they wait, unless the user has set this already.

    Without a limit, spinning threads take CPU time from the thread that they wait for: beside one busy process a step
    took 4.6 times as long. Not spinning at all (``OMP_WAIT_POLICY=passive``) costs about a fifth of the speed on idle
    cores, because a sleeping thread must be woken. Spinning for this short time costs nothing there. OpenMP reads the
    variable when torch is first imported, so it is set before that.
    """
    if "OMP_WAIT_POLICY" not in environment and "GOMP_SPINCOUNT" not in environment:
        environment["GOMP_SPINCOUNT"] = "20000"


class _Notes:
    """Prints each warning as one line on standard error, and the same warning only once.

    A loud warning, such as for hundreds of images left out, is printed again at the end, so that it is not overlooked.
    """

    def __init__(self) -> None:
        self.printed: set[str] = set()
        self.loud: list[str] = []
        self.last = ""

    def __call__(self, message: Warning | str, *_: object) -> None:
        line = f"metarep: {'warning' if getattr(message, 'loud', False) else 'note'}: {worded(message)}"
        if line not in self.printed:
            self.printed.add(line)
            self.last = line
            self.loud += [line] if getattr(message, "loud", False) else []
            print(line, file=sys.stderr)

    def say_again(self) -> None:
        sys.stdout.flush()
        for line in self.loud:
            if line != self.last or sys.stdout.isatty():
                print(line, file=sys.stderr)


def top_parser() -> Parser:
    """The parser of ``metarep``. It has a sub-parser for each command, which is imported only when it is used."""
    return Parser(
        fill=_fill_top,
        prog="metarep",
        usage="metarep COMMAND ...",
        description="Learn image representations for few-shot tasks; classify or search images.",
        epilog=EXAMPLE,
    )


def parser_of(*names: str) -> Parser:
    """The sub-parser of a command, action or method, such as ``parser_of("train", "protonet")``."""
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
