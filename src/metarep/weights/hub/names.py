"""Names on the Hub: hf:USER/NAME, perhaps with the revision that is meant, as in hf:USER/NAME@REVISION."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from metarep.errors import MetarepError

PREFIX = "hf:"
COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][\w./-]{{0,199}}))?", re.ASCII)


@dataclass(frozen=True)
class HubName:
    """The name of a repository of models on the Hub.

    Args:
        repo: user or organisation, and name: ``USER/NAME``.
        revision: a branch, a tag or the hash of a commit; empty for the newest commit of ``main``.

    >>> name = HubName.read("hf:ann/moths@v1")
    >>> name.repo, name.revision, name.pinned, str(name)
    ('ann/moths', 'v1', False, 'hf:ann/moths@v1')
    >>> str(name.at("0123456789" * 4))
    'hf:ann/moths@0123456789012345678901234567890123456789'
    """

    repo: str
    revision: str = ""

    @classmethod
    def read(cls, text: str | Path) -> "HubName":
        """The name in a text.

        Raises:
            MetarepError: the text is not ``hf:USER/NAME`` or ``hf:USER/NAME@REVISION``.

        >>> HubName.read("hf:moths")
        Traceback (most recent call last):
        metarep.errors.MetarepError: 'hf:moths' is no name on the Hub; write hf:USER/NAME, or hf:USER/NAME@REVISION
        """
        text = _posix(text)
        match = _NAME.fullmatch(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else None
        if match is None or any(sign in text for sign in ("..", "--", "//")):
            advice = "write hf:USER/NAME, or hf:USER/NAME@REVISION"
            raise MetarepError(f"{text[:200]!r} is no name on the Hub", advice=advice)
        return cls(match[1], match[2] or "")

    @property
    def pinned(self) -> bool:
        """Whether the revision is the hash of a commit, so that the name stands for the same files for good."""
        return COMMIT.fullmatch(self.revision) is not None

    def at(self, revision: str) -> "HubName":
        """The same repository at another revision."""
        return replace(self, revision=revision)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_hub_name(name: str | Path) -> bool:
    """Whether a name is meant to be one on the Hub, rather than a file or a folder.

    >>> is_hub_name("hf:ann/moths"), is_hub_name("runs/hf"), is_hub_name(Path("hf:ann/moths"))
    (True, False, True)
    """
    return _posix(name).startswith(PREFIX)


def short_name(name: str | Path) -> str:
    """The name of a run or an encoder in records: of a path its last part, and of a name on the Hub all of it.

    >>> short_name("runs/protonet"), short_name("hf:ann/moths@v1")
    ('protonet', 'hf:ann/moths@v1')
    """
    return _posix(name) if is_hub_name(name) else Path(name).name


def _posix(name: str | Path) -> str:
    return name.as_posix() if isinstance(name, Path) else str(name)
