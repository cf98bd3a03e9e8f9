"""Limits: how much one request may bring, and how large a model may grow."""

import unicodedata
from collections import Counter
from dataclasses import dataclass

from metarep.data.class_names import BadNameError
from metarep.errors import MetarepError, counted
from metarep.model.gallery import Gallery

LONGEST_NAME = 80  # characters of a name that a request brings; the page shows no more
MOST_FILES = 1000  # what the web framework accepts in one form
BIDI_CONTROLS = frozenset(
    map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)  # they reverse the text after them


class TooMuchError(MetarepError):
    """A request asks for more than a limit allows."""


@dataclass(frozen=True)
class Limits:
    """What one request may bring, and how large a model may grow.

    Args:
        megabytes: largest request, in MiB (2^20 bytes).
        megapixels: largest image before it is scaled, in millions of pixels.
        files: most images in one request.
        images: most images in one class.
        classes: most classes in the model.
        requests: most requests that are answered at a time; further ones get status 429.
        patience: seconds in which a request must have arrived.

    >>> Limits(megabytes=2).body, Limits().pixels
    (2097152, 40000000)
    """

    megabytes: int = 32
    megapixels: float = 40.0
    files: int = 64
    images: int = 500
    classes: int = 500
    requests: int = 64
    patience: float = 60.0

    @property
    def pixels(self) -> int:
        """The largest number of pixels of an image."""
        return round(self.megapixels * 1e6)

    @property
    def body(self) -> int:
        """The largest number of bytes of a request's body."""
        return self.megabytes << 20

    def allow(self, before: Gallery, after: Gallery) -> None:
        """Raise if a change makes the gallery exceed a limit. A gallery that exceeds it already may shrink.

        Args:
            before: the gallery as it is.
            after: the gallery as it would be.

        Raises:
            TooMuchError: too many classes, or too many images in a class.
            BadNameError: a new class with too long a name.
        """
        for name in set(after.names) - set(before.names):
            if len(name) > LONGEST_NAME:
                raise BadNameError(
                    f"the class name {name[:20]!r}… has {len(name)} characters, and at most {LONGEST_NAME} are allowed",
                    advice="shorten it",
                )
        if len(after.names) > max(self.classes, len(before.names)):
            raise TooMuchError(
                f"the model would have {counted(len(after.names), 'class')}; this server allows at most "
                f"{counted(self.classes, 'class')}",
                advice="remove a class first",
            )
        earlier = Counter(dict(zip(before.names, before.counts.tolist(), strict=True)))
        for name, count in zip(after.names, after.counts.tolist(), strict=True):
            if count > max(self.images, earlier[name]):
                raise TooMuchError(
                    f"class {name!r} would have {counted(count, 'image')}; this server allows at most {self.images}",
                    advice="remove some images first",
                )


def shown_name(given: str | None, number: int) -> str:
    r"""Return a file's name as it may be shown: without folders, control characters and text-direction marks.

    The name is only shown; nothing is opened by it.

    Args:
        given: the name or path that the client sent, if any.
        number: stands in for a name that is missing or empty.

    >>> shown_name("../../etc/moth\x00.jpg", 0), shown_name(None, 2)
    ('moth.jpg', 'image 2')
    """
    last = (given or "").replace("\\", "/").rpartition("/")[2]
    kept = "".join(
        letter for letter in last if unicodedata.category(letter)[0] != "C" and letter not in BIDI_CONTROLS
    ).strip()
    return kept[-LONGEST_NAME:] or f"image {number}"
