"""Digests of the classes that a training has seen, and the check that nothing is measured on them."""

import hashlib
from collections.abc import Iterable, Sequence, Set

from metarep.errors import Advice, LeakageError


def refuse(
    seen: Set[str], keys: Sequence[str], names: Sequence[str], what: str, why: str, advice: Sequence[str | Advice]
) -> None:
    """Raise if the key of any class is in ``seen``.

    Args:
        seen: digests of keys.
        keys: the keys of the classes.
        names: the names of the classes, in the same order.
        what: the end of the sentence "2 of the 5 classes of ...", such as ``mine/val were trained on``.
        why: the reason why the classes are refused.
        advice: what the user can do; see :class:`metarep.errors.Advised`.

    Raises:
        LeakageError: a key is in ``seen``. The message names up to three classes with different keys.

    >>> refuse(digests(["a"]), ["b"], ["b"], "mine/val were trained on", "they are not new", ())
    """
    known = [row for row, key in enumerate(keys) if key_digest(key) in seen]
    if known:
        first: dict[str, str] = {}
        for row in known:
            first.setdefault(keys[row], names[row])
        shown = ", ".join([*list(first.values())[:3], *(["…"] if len(first) > 3 else [])])
        raise LeakageError(f"{len(known)} of the {len(keys)} classes of {what} ({shown}): {why}", advice=advice)


def digests(keys: Iterable[str]) -> frozenset[str]:
    """The digests of the keys of classes, which a checkpoint keeps instead of the keys."""
    return frozenset(map(key_digest, keys))


def key_digest(key: str) -> str:
    """The digest of the key of a class: the first 12 hexadecimal digits of its SHA-256.

    >>> key_digest("omniglot/Greek/alpha")
    '3df5c384919f'
    """
    return hashlib.sha256(key.encode()).hexdigest()[:12]
