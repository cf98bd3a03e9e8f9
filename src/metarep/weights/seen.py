"""Which classes a training has seen, as digests of their keys, and the refusal to measure on them."""

import hashlib
from collections.abc import Iterable, Sequence, Set

from metarep.errors import Advice, LeakageError


def refuse(
    seen: Set[str], keys: Sequence[str], names: Sequence[str], what: str, why: str, advice: Sequence[str | Advice]
) -> None:
    """Raise if any class of these keys is in ``seen``.

    Args:
        seen: digests of keys.
        keys, names: of the classes.
        what: was done with them, and of what they are.
        why: the reason why that is refused.
        advice: see :class:`metarep.errors.Advised`.

    Raises:
        LeakageError: it names up to three of the classes, of those that share a key the first.
    """
    met = [row for row, key in enumerate(keys) if key_digest(key) in seen]
    if met:
        first: dict[str, str] = {}
        for row in met:
            first.setdefault(keys[row], names[row])
        shown = ", ".join([*list(first.values())[:3], *(["…"] if len(first) > 3 else [])])
        raise LeakageError(f"{len(met)} of the {len(keys)} classes of {what} ({shown}): {why}", advice=advice)


def digests(keys: Iterable[str]) -> frozenset[str]:
    """What a checkpoint keeps of the keys of classes."""
    return frozenset(map(key_digest, keys))


def key_digest(key: str) -> str:
    """What a checkpoint keeps of a class's key."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]
