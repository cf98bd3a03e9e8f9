"""The parser of the command line, with a sub-parser for each command, action, method and backend.

How a command line is read
    ``metarep`` has a sub-parser for each command, ``metarep train`` one for each method, and ``metarep index`` one for
    each action. A sub-parser is filled with flags when it is named, so that ``metarep --help`` imports nothing.

    Flags may stand anywhere after their command, also before the name that they depend on, as in
    ``metarep train --turns 3 protonet``. The parser of ``train`` therefore knows all flags of all methods, but only by
    name and by whether a value follows (:class:`_Kept`). It keeps what it meets as it was typed. The word that no flag
    takes as its value is the method, and the method's parser reads the kept flags and everything that follows.
    The settings of a backend are kept in the same way, and read by the parser that ``--index NAME`` chooses.

    A flag therefore takes a value in all sub-parsers of a command, or in none.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from metarep.cli.help_text import HelpFormatter
from metarep.errors import MetarepError, unknown

KEPT = "kept flags"  # where a namespace holds them; no flag can have this name

# Messages of argparse, and the words for them.
WORDED = (
    (r"argument (.+?): invalid int value: (.*)", r"\1 must be a whole number, not \2"),
    (r"argument (.+?): invalid float value: (.*)", r"\1 must be a number, not \2"),
    (r"argument (.+?): expected one argument", r"\1 needs a value"),
    (r"argument (.+?): expected at least one argument", r"\1 needs at least one value"),
    (r"the following arguments are required: ([^,]*)", r"\1 is missing"),
    (r"the following arguments are required: (.*), (.*)", r"\1 and \2 are missing"),
)

Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser that is filled when it is used, never abbreviates, and raises errors of ours.

    Args:
        fill: adds the flags, when they are needed for the first time.
        run: what the command does with its arguments.
        options: those of ``ArgumentParser``.
    """

    def __init__(
        self,
        *,
        fill: Callable[["Parser"], None] | None = None,
        run: Run | None = None,
        **options: Any,  # noqa: ANN401 - argparse's own
    ) -> None:
        super().__init__(allow_abbrev=False, formatter_class=HelpFormatter, **options)
        self.run = run
        self._fill = fill
        self._names: _Names | None = None
        self._by_flag: tuple[str, str, Mapping[str, Parser]] | None = None
        self.siblings: Mapping[str, Parser] = {}
        self.argv: list[str] = []

    def filled(self) -> "Parser":
        """The parser itself, after its flags are added."""
        fill, self._fill = self._fill, None
        if fill:
            fill(self)
        return self

    @property
    def sub_parsers(self) -> dict[str, "Parser"]:
        """The sub-parsers of commands, actions or methods, by name."""
        self.filled()
        return self._names.parsers if self._names else {}

    def fill_from(self, command: Any) -> None:  # noqa: ANN401 - a module
        """Fill the parser from the module of a command or an action: usage, examples, flags and the function to run."""
        self.usage = f"{self.prog} [flags] {getattr(command, 'USAGE', '')}".rstrip()
        self.epilog = getattr(command, "EXAMPLE", "")
        self.run = getattr(command, "run", None)
        command.add(self)

    def read(self, argv: Sequence[str], into: argparse.Namespace) -> None:
        """Read a command line.

        Args:
            argv: the arguments after the parser's own name.
            into: gets a value for each flag, the ``parser`` that read them, and the function to ``call``.

        Raises:
            MetarepError: there is an unknown flag or name, a value that cannot be used, or one argument too many.
        """
        self.filled()
        into.parser, into.call, self.argv = self, self.run, list(argv)
        for arg in argv:
            if (
                self.knows(arg) and arg.endswith("=--") and arg.count("=") == 1
            ):  # argparse drops the `--`, and gives a list for the value
                self.error(f"{arg.removesuffix('=--')} needs a value, not --")
        if self._names or argv[:1] == [
            "--"
        ]:  # everything after it is a word; the intermixed parser of Python 3.11 would drop it
            _, rest = self.parse_known_args(argv, into)
        else:
            _, rest = self.parse_known_intermixed_args(argv, into)
        self.refuse_unknown(rest)
        if self._names and getattr(into, self._names.dest, None) is None:
            self.error(f"{self._names.metavar} is missing: {', '.join(self._names.parsers)}")
        if self._by_flag:
            kind, dest, parsers = self._by_flag
            name = getattr(into, dest)
            if name not in parsers:
                raise unknown(kind, name, parsers)
            parsers[name].read(vars(into).pop(KEPT, []), into)
            into.parser, into.call = self, self.run

    def add_names(self, kind: str, metavar: str, title: str, help: str | None = None) -> "_Names":
        """Add a word that chooses a sub-parser. Call :meth:`add_parser` of the returned action to add each sub-parser.

        Args:
            kind: what the words name, such as ``method``; errors use it.
            metavar: the placeholder of the word in help.
            title: the heading of the list of sub-parsers.
            help: help of the word; None if each sub-parser has its own.
        """
        options: dict[str, Any] = {"help": help} if help else {}
        self.add_subparsers(
            title=title, dest=kind, metavar=metavar, prog=self.prog, action=_Names, parser_class=Parser, **options
        )
        self._names = next(action for action in self._actions if isinstance(action, _Names))
        return self._names

    def add_parsers_by_flag(
        self,
        flag: str,
        kind: str,
        dest: str,
        parsers: Mapping[str, "Parser"],
        **options: Any,  # noqa: ANN401 - argparse's own
    ) -> None:
        """Add a flag whose value chooses a sub-parser, which reads its own flags. Help shows those of all."""
        self.add_argument(flag, dest=dest, **options)
        self._by_flag = kind, dest, parsers
        self.keep_flags_of(parsers)
        for parser in parsers.values():
            self.show_flags_of(parser)

    def keep_flags_of(self, others: Mapping[str, "Parser"]) -> None:
        """Accept the flags of alternative sub-parsers, and keep them until one of the sub-parsers is chosen."""
        for other in others.values():
            other.siblings = others
        for action in (action for other in others.values() for action in other.filled()._actions):
            flags = [flag for flag in action.option_strings if flag not in self._option_string_actions]
            if flags:
                hidden: dict[str, Any] = {"dest": KEPT, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
                self.add_argument(*flags, action=_Kept, nargs=action.nargs, **hidden)

    def knows(self, arg: str) -> bool:
        """Whether this is a flag of the parser, with or without a value in the same argument."""
        return (arg.partition("=")[0] if arg.startswith("--") else arg[:2]) in self._option_string_actions

    def show_flags_of(self, other: "Parser") -> None:
        """List the flags of another parser in this one's help."""
        self._action_groups.extend(group for group in other.filled()._action_groups if group._group_actions)

    def error(self, message: str) -> NoReturn:
        """Raise a ``MetarepError`` with argparse's message in plain words and the command that prints help."""
        choice = re.match(
            r"argument (?P<flag>[^:]+): invalid choice: '(?P<given>[^']*)'[^(]* \(choose from (?P<known>.*)\)", message
        )
        if choice:
            known = [name.strip(" '") for name in choice["known"].split(",")]
            hint = nearest(choice["given"], known)
            message = f"{choice['flag']}: {choice['given']!r} is not one of {', '.join(known)}{hint}"
        worded = (re.sub(pattern, words, message) for pattern, words in WORDED if re.fullmatch(pattern, message))
        raise MetarepError(f"{next(worded, message)}. Try: {self.prog} --help")

    def refuse_unknown(self, rest: Sequence[str]) -> None:
        """Raise an error if arguments are left that no flag and no word has taken."""
        words = rest.index("--") if "--" in rest else len(rest)  # after which nothing is a flag
        flags = [arg.partition("=")[0] for arg in rest[:words] if _is_flag(arg)]
        if flags:
            owners = [
                name for name, other in self.siblings.items() if flags[0] in other.filled()._option_string_actions
            ]
            hint = f" (it is one of {', '.join(owners)})" if owners else nearest(flags[0], self._option_string_actions)
            self.error(f"there is no flag {flags[0]}{hint}")
        if left := [*rest[:words], *rest[words + 1 :]]:
            self.error(f"{left[0]!r} is one argument too many")


class _Kept(argparse.Action):
    """A flag of a sub-parser that is not chosen yet: it is kept as it was typed."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's own
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        kept, flag = vars(namespace).setdefault(KEPT, []), str(option_string)
        if not isinstance(values, str):
            kept += [flag]
        else:
            kept += [f"{flag}={values}"] if flag.startswith("--") else [flag, values]


class _Names(argparse._SubParsersAction):
    """A word that chooses a sub-parser. The sub-parser then reads the kept flags and everything after the word."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(**options)
        self.parsers: dict[str, Parser] = self._name_parser_map
        self.choices: Any = None  # so that argparse accepts a wrong word, which is refused below

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002 - argparse's own
    ) -> None:
        assert isinstance(parser, Parser)
        words = list(values or ())
        before = parser.argv[: len(parser.argv) - len(words)]
        parser.refuse_unknown([arg for arg in before if _is_flag(arg) and not parser.knows(arg)])
        words = words[1:] if words[0] == "--" else words  # of argparse 3.11; later ones have dropped it
        name = words[0] if words else ""
        if name not in self.parsers:
            raise unknown(self.dest, name, self.parsers)
        setattr(namespace, self.dest, name)
        self.parsers[name].read([*vars(namespace).pop(KEPT, []), *words[1:]], namespace)


def _is_flag(arg: str) -> bool:
    """Whether argparse takes this for a flag, known or not."""
    return arg.startswith("-") and len(arg) > 1 and " " not in arg and not re.fullmatch(r"-\d+|-\d*\.\d+", arg)


def nearest(given: str, known: Iterable[str]) -> str:
    """A question that names the most similar known name; empty if no known name is similar.

    >>> nearest("--stesp", ["--steps", "--lr"])
    ' (did you mean --steps?)'
    """
    import difflib  # here, because no help needs it

    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
