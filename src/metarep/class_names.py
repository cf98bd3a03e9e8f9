"""Class names: one rule for what a class may be called, and which names are the same or only look so."""

import unicodedata
import warnings
from collections.abc import Iterable

from metarep.errors import MetarepError

LONGEST = 255  # characters: what a file system takes for the name of a folder
JOINERS = "\u200c\u200d"  # within words and pictures they change how their neighbours look
FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # no spaces by their kind, and yet blank
_OUTER = JOINERS + "\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f \x85\u2028\u2029"
MOST = 3  # pairs that are printed

# Letters and signs of other scripts that are drawn as one of ASCII, and what they are drawn as.
_DRAWN = {
    "\u0410\u0412\u0415\u0405\u0406\u0408\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u04ae\u0425": "ABESIJKMHOPCTYX",
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u051b\u051d\u0501": "aeopcyxijshqwd",
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7": "ABEZHIKMNOPTYX",
    "\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1\u03f2\u0585\u0578\u0570\u0131\u0251\u0261": "aikvopconhiag",
    "\u2010\u2011\u2012\u2013\u2014\u2212\u2018\u2019\u02bc\u201c\u201d": "------'''\"\"",
}
_ALIKE = {ord(one): other for these, those in _DRAWN.items() for one, other in zip(these, those, strict=True)}
_UNSEEN = dict.fromkeys((*map(ord, JOINERS), *range(0xFE00, 0xFE10)))  # joiners, and which variant to draw


class BadNameError(MetarepError):
    """What no class can be called."""


class LookAlikeWarning(UserWarning):
    """Two classes have names that differ, and that people take for one."""


def composed(given: str) -> str:
    r"""A name as it is compared: Unicode NFC, every kind of space an ordinary one, none around it.

    Two names that are equal then are one class: ``café`` has one form on a Mac and another elsewhere.

    >>> composed(" cafe\u0301\u00a0noir") == "caf\u00e9 noir"
    True
    """
    name = unicodedata.normalize("NFC", given)
    return "".join(" " if unicodedata.category(each) == "Zs" else each for each in name).strip(_OUTER)


def clean_name(given: str) -> str:
    r"""The name of a class as it is kept: :func:`composed`, and nothing in it that cannot be seen.

    Raises:
        BadNameError: an empty or overlong one, or one with control characters, zero-width spaces, marks that turn the
            direction of writing, or fillers.

    >>> clean_name("  hawk moth ")
    'hawk moth'
    >>> clean_name("hawk\u200bmoth")
    Traceback (most recent call last):
        ...
    metarep.class_names.BadNameError: the name 'hawk\u200bmoth' has characters that cannot be seen; call it 'hawkmoth'
    """
    name = composed(given)
    if not name:
        raise BadNameError("a class needs a name")
    if len(name) > LONGEST:
        raise BadNameError(f"the name {name[:20]!r}… has {len(name)} characters; at most {LONGEST} are kept")
    seen = "".join(each for each in name if not _is_unseen(each))
    if seen != name or all(unicodedata.category(each)[0] in "CMZ" for each in name if each not in JOINERS):
        again = composed(seen)
        visible = any(unicodedata.category(each)[0] not in "CMZ" for each in again)
        hint = f"call it {again!r}" if visible else "use letters, digits and signs"
        raise BadNameError(f"the name {name!a} has characters that cannot be seen; {hint}")
    return name


def look_alikes(names: Iterable[str], new: Iterable[str] | None = None) -> list[tuple[str, str]]:
    r"""Pairs of names that differ in upper and lower case alone, or by letters that are drawn alike.

    Looked for are Cyrillic, Greek and other letters that are drawn as Latin ones, letters in other widths and styles,
    kinds of hyphens and quotes, and signs that are not drawn at all.

    Args:
        names: all there are.
        new: only pairs with one of these; None for all pairs.

    Returns:
        Each pair in the order of ``names``.

    >>> look_alikes(["Minaret", "cup", "tiger\u2013moth", "minaret", "tiger-moth"])
    [('Minaret', 'minaret'), ('tiger–moth', 'tiger-moth')]
    """
    first: dict[str, list[str]] = {}
    wanted, found = None if new is None else set(new), {}
    for name in dict.fromkeys(names):
        for form in _forms(name):
            others = first.setdefault(form, [])
            for other in others:
                if other != name and (wanted is None or name in wanted or other in wanted):
                    found[other, name] = None
            others.append(name)
    return list(found)


def told_alike(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """What to tell a person of :func:`look_alikes`: a line for twins of case and one for names that are drawn alike.

    >>> told_alike([("Minaret", "minaret")])
    ["the classes 'Minaret' and 'minaret' differ in upper and lower case alone; make them one, if they are one thing"]
    """
    pairs = list(pairs)
    twins = [pair for pair in pairs if plain(pair[0]) == plain(pair[1])]
    drawn = [pair for pair in pairs if pair not in twins]
    said = []
    for some, how, write in ((twins, "differ in upper and lower case alone", repr), (drawn, "look the same", ascii)):
        if some:
            shown = ", ".join(f"{write(one)} and {write(other)}" for one, other in some[:MOST])
            more = f" ({len(some)} pairs, such as {shown})" if len(some) > MOST else ""
            which = "classes" if more else f"the classes {shown}"
            said.append(f"{which} {how}{more}; make them one, if they are one thing")
    return said


def tell_look_alikes(names: Iterable[str], new: Iterable[str] | None = None) -> None:
    """A :class:`LookAlikeWarning` of names as :func:`look_alikes` finds them."""
    for text in told_alike(look_alikes(names, new)):
        warnings.warn(text, LookAlikeWarning, stacklevel=3)


def plain(name: str) -> str:
    """A name as a file system that ignores case and Unicode form would compare it."""
    return composed(name).casefold()


def _is_unseen(letter: str) -> bool:
    return letter in FILLERS or (
        letter not in JOINERS and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )


def _forms(name: str) -> set[str]:
    """Two names that share one of these look alike."""
    flat = " ".join(unicodedata.normalize("NFKC", name.translate(_UNSEEN)).split())
    return {flat.casefold(), flat.translate(_ALIKE).casefold()}
