"""Limits: how much a request may ask for, and how long the names are that it brings."""

import unicodedata
from collections import Counter
from dataclasses import dataclass

from metarep.data.class_names import BadNameError
from metarep.errors import MetarepError, counted
from metarep.model.gallery import Gallery

LONGEST = 80  # characters of a name that a request brings; the page has no room for more
MOST_FILES = 1000  # that the framework takes in one form
TURNED = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))  # they make a text read otherwise


class TooMuchError(MetarepError):
    """More than a limit allows."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Args:
        megabytes: of a request, of 2^20 bytes each.
        megapixels: of an image, before it is scaled.
        files: images of a request.
        images: images that a class may have.
        classes: classes that the model may have.
        requests: that are answered at a time; further ones are told to come again.
        patience: seconds that a request may take to arrive.
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
        return round(self.megapixels * 1e6)

    @property
    def body(self) -> int:
        return self.megabytes << 20

    def allow(self, before: Gallery, after: Gallery) -> None:
        """Refuse a gallery that has grown beyond the limits; one that was beyond them already may shrink.

        Raises:
            TooMuchError: too many classes, or images of a class.
            BadNameError: a new class with too long a name.
        """
        for name in set(after.names) - set(before.names):
            if len(name) > LONGEST:
                raise BadNameError(f"the name {name[:20]!r}… has {len(name)} characters; at most {LONGEST} are kept")
        if len(after.names) > max(self.classes, len(before.names)):
            raise TooMuchError(f"a model has at most {counted(self.classes, 'class')} here; remove one first")
        here = Counter(dict(zip(before.names, before.counts.tolist(), strict=True)))
        for name, count in zip(after.names, after.counts.tolist(), strict=True):
            if count > max(self.images, here[name]):
                raise TooMuchError(
                    f"class {name!r} would have {counted(count, 'image')}, and at most {self.images} may be kept; "
                    "remove some first"
                )


def shown_name(given: str | None, place: int) -> str:
    r"""What to call an uploaded file: the end of what it says it is called. It is shown, and never opened.

    >>> shown_name("../../etc/moth\x00.jpg", 0), shown_name(None, 2)
    ('moth.jpg', 'image 2')
    """
    last = (given or "").replace("\\", "/").rpartition("/")[2]
    kept = "".join(each for each in last if unicodedata.category(each)[0] != "C" and each not in TURNED).strip()
    return kept[-LONGEST:] or f"image {place}"
