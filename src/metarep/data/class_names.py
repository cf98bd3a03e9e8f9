"""Class names: which names are allowed, which are equal, and which differ but look the same."""

import unicodedata
import warnings
from collections.abc import Iterable

from metarep.errors import MetarepError

LONGEST = 255  # characters: the longest folder name that file systems take
JOINERS = "\u200c\u200d"  # zero-width (non-)joiners: within words and emoji they change how their neighbours look
FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # blank, although Unicode calls none a space
_OUTER = JOINERS + "\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f \x85\u2028\u2029"  # removed at both ends of a name
MOST = 3  # pairs that a message names

# Letters and signs of other scripts that look like an ASCII character, and that character.
_DRAWN = {
    "\u0410\u0412\u0415\u0405\u0406\u0408\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u04ae\u0425": "ABESIJKMHOPCTYX",
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u051b\u051d\u0501": "aeopcyxijshqwd",
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7": "ABEZHIKMNOPTYX",
    "\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1\u03f2\u0585\u0578\u0570\u0131\u0251\u0261": "aikvopconhiag",
    "\u2010\u2011\u2012\u2013\u2014\u2212\u2018\u2019\u02bc\u201c\u201d": "------'''\"\"",
}
_ALIKE = {ord(one): other for these, those in _DRAWN.items() for one, other in zip(these, those, strict=True)}
_UNSEEN = dict.fromkeys((*map(ord, JOINERS), *range(0xFE00, 0xFE10)))  # joiners and variation selectors


class BadNameError(MetarepError):
    """A class cannot have this name."""


class LookAlikeWarning(UserWarning):
    """Warns that two classes have different names which people may read as the same."""


def composed(given: str) -> str:
    r"""Normalise a name for comparison: Unicode NFC, ordinary spaces, and no space at either end.

    Two names that are equal in this form are one class. ``café`` has one form on a Mac and another elsewhere.

    >>> composed(" cafe\u0301\u00a0noir") == "caf\u00e9 noir"
    True
    """
    name = unicodedata.normalize("NFC", given)
    return "".join(" " if unicodedata.category(each) == "Zs" else each for each in name).strip(_OUTER)


def clean_name(given: str) -> str:
    r"""Normalise the name of a class with :func:`composed`, and refuse invisible characters.

    Raises:
        BadNameError: the name is empty, too long, or has invisible characters: control characters, zero-width spaces,
            marks that change the direction of writing, or fillers.

    >>> clean_name("  hawk moth ")
    'hawk moth'
    >>> clean_name("a\u200bmoth")
    Traceback (most recent call last):
        ...
    metarep.data.class_names.BadNameError: the name 'a\u200bmoth' has characters that cannot be seen; call it 'amoth'
    """
    name = composed(given)
    if not name:
        raise BadNameError("a class needs a name; give one of at least one letter")
    if len(name) > LONGEST:
        raise BadNameError(f"the name {name[:20]!r}… has {len(name)} characters; at most {LONGEST} are kept")
    seen = "".join(letter for letter in name if not _is_unseen(letter))
    if seen != name or not _is_visible(letter for letter in name if letter not in JOINERS):
        repaired = composed(seen)
        hint = f"call it {repaired!r}" if _is_visible(repaired) else "use letters, digits and signs"
        raise BadNameError(f"the name {name!a} has characters that cannot be seen; {hint}")
    return name


def look_alikes(names: Iterable[str], new: Iterable[str] | None = None) -> list[tuple[str, str]]:
    r"""Find pairs of names that differ only in case, or by letters that look the same.

    It knows Cyrillic, Greek and other letters that look Latin, letters of other widths and styles, kinds of hyphens
    and quotes, and characters that are not drawn at all.

    Args:
        names: all names.
        new: report only pairs with one of these names; None for all pairs.

    Returns:
        The pairs, in the order of ``names``, each once.

    >>> look_alikes(["Minaret", "cup", "tiger\u2013moth", "minaret", "tiger-moth"])
    [('Minaret', 'minaret'), ('tiger–moth', 'tiger-moth')]
    """
    by_form: dict[str, list[str]] = {}
    wanted = None if new is None else set(new)
    pairs: dict[tuple[str, str], None] = {}  # a set that keeps its order
    for name in dict.fromkeys(names):
        for form in _forms(name):
            others = by_form.setdefault(form, [])
            for other in others:
                if other != name and (wanted is None or name in wanted or other in wanted):
                    pairs[other, name] = None
            others.append(name)
    return list(pairs)


def look_alike_lines(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Describe the pairs of :func:`look_alikes`: one line for names that differ only in case, and one for the others.

    >>> look_alike_lines([("Minaret", "minaret")])
    ["the classes 'Minaret' and 'minaret' differ in upper and lower case alone; make them one, if they are one thing"]
    """
    pairs = list(pairs)
    by_case = [pair for pair in pairs if plain(pair[0]) == plain(pair[1])]
    by_letter = [pair for pair in pairs if pair not in by_case]
    kinds = ((by_case, "differ in upper and lower case alone", repr), (by_letter, "look the same", ascii))
    lines = []
    for some, how, write in kinds:
        if some:
            shown = ", ".join(f"{write(one)} and {write(other)}" for one, other in some[:MOST])
            more = f" ({len(some)} pairs, such as {shown})" if len(some) > MOST else ""
            which = "classes" if more else f"the classes {shown}"
            lines.append(f"{which} {how}{more}; make them one, if they are one thing")
    return lines


def warn_of_look_alikes(names: Iterable[str], new: Iterable[str] | None = None) -> None:
    """Give a :class:`LookAlikeWarning` for the pairs that :func:`look_alikes` finds.

    Args:
        names, new: see :func:`look_alikes`.
    """
    for text in look_alike_lines(look_alikes(names, new)):
        warnings.warn(text, LookAlikeWarning, stacklevel=3)


def plain(name: str) -> str:
    """Normalise a name as a file system does that ignores case and Unicode form.

    >>> plain("  Hawk Moth")
    'hawk moth'
    """
    return composed(name).casefold()


def _is_unseen(letter: str) -> bool:
    """Whether a character is invisible and not allowed in a name."""
    return letter in FILLERS or (
        letter not in JOINERS and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )


def _is_visible(letters: Iterable[str]) -> bool:
    """Whether one of the characters can be seen by itself: it is not a control character, a mark or a space."""
    return any(unicodedata.category(letter)[0] not in "CMZ" for letter in letters)


def _forms(name: str) -> set[str]:
    """The simplified forms of a name. Two names that share one of them look alike."""
    flat = " ".join(unicodedata.normalize("NFKC", name.translate(_UNSEEN)).split())
    return {flat.casefold(), flat.translate(_ALIKE).casefold()}
