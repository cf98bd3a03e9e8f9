"""Lists of images with several labels each: a CSV file, or a text file, in which ``|`` stands between the labels."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from metarep.data.class_names import look_alike_lines, look_alikes
from metarep.data.reading.folder_walk import shown
from metarep.data.reading.labelled_list import clean_label, folder_label, is_list, repeat_lines
from metarep.data.reading.list_lines import Entry, located, refuse_another_group
from metarep.errors import DataError

SIGN = "|"  # what stands between the labels of an image; predict --csv writes it too
WRONG = ";"


@dataclass(frozen=True)
class LabelSets:
    """Images, and the set of labels that each of them has.

    Args:
        root: the folder that the files are in.
        files: the images, relative to ``root``, in the order of the list.
        labels: the labels of each, sorted; empty if it has none of them.
        notes: what a reader of the list should know, one line each.
        groups: the group of each image; an empty text for one by itself.
    """

    root: Path
    files: tuple[Path, ...]
    labels: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted({label for labels in self.labels for label in labels}))


def read_label_sets(file: Path, *, none: bool = False) -> LabelSets:
    r"""Read a list of images with several labels each.

    The file is as for :func:`metarep.data.reading.labelled_list.read_list`, but its labels are written ``cat|dog``.
    Lines of the same image are taken together. An image whose label is empty has none of the labels, which teaches what
    an image without them looks like; another line may not give it one.

    Args:
        file: the list.
        none: whether the list may give no label to any image.

    Raises:
        DataError: the file is not such a list, an image does not exist or has a label in one line and none in another,
            or no image has a label. The message has the number of the line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("1.png", "2.png", "3.png"):
    ...         (Path(folder) / name).touch()
    ...     _ = (Path(folder) / "some.csv").write_text("path,label\n1.png,dog|cat\n2.png,cat\n3.png,\n2.png,owl\n")
    ...     label_sets = read_label_sets(Path(folder) / "some.csv")
    >>> label_sets.labels, label_sets.names
    ((('cat', 'dog'), ('cat', 'owl'), ()), ('cat', 'dog', 'owl'))
    """
    file = file.expanduser()
    name = shown(file)
    if not file.exists():
        raise DataError(f"there is no file {name}; check the path")
    if not is_list(file):
        what = "is a folder" if file.is_dir() else "is no list"
        raise DataError(
            f"{name} {what}; several labels an image are read from a list",
            advice="give a .csv file with the columns path,label, and label|label in the second",
        )
    labels: dict[str, set[str]] = {}
    paths: dict[str, Path] = {}
    first: dict[str, int] = {}  # the first line of each image
    groups: dict[str, str] = {}
    again = 0
    for entry, path in located(file):
        key = os.path.abspath(file.parent / path)
        own = _labels(entry, name)
        before = labels.setdefault(key, set())
        if key in paths and bool(own) != bool(before):
            with_it, without = sorted((first[key], entry.line), reverse=not before)
            some = SIGN.join(sorted(own | before))
            raise DataError(
                f"{name}: {entry.path!r} has {some!r} in line {with_it} and no label in line {without}",
                advice="remove one of the two lines",
            )
        refuse_another_group(groups, key, entry, first.get(key, entry.line), name)
        again += key in paths and own <= before
        before |= own
        paths.setdefault(key, path)
        first.setdefault(key, entry.line)
    sets = tuple(tuple(sorted(labels[key])) for key in paths)
    label_sets = LabelSets(file.parent, tuple(paths.values()), sets, groups=tuple(groups[key] for key in paths))
    if not label_sets.names and not none:
        raise DataError(f"{name} gives no label to any image", advice="write label|label in the column label")
    notes = repeat_lines(again, name) + look_alike_lines(look_alikes(label_sets.names))
    return replace(label_sets, notes=tuple(notes))


def _labels(entry: Entry, name: str) -> set[str]:
    """The labels in a line of a list."""
    text, where = entry.label, f"{name}, line {entry.line}"
    if text is None:
        text = folder_label(entry, name)
    return set(labels_in(text, where))


def labels_in(text: str, where: str) -> tuple[str, ...]:
    """Returns the labels in a text such as ``cat|dog``, sorted; none if it is empty.

    Args:
        text: the text.
        where: the place of the text, for the message.

    Raises:
        DataError: the text has a semicolon or an empty label, or a label cannot be a name.

    >>> labels_in("dog | cat", "line 1"), labels_in("", "line 2")
    (('cat', 'dog'), ())
    """
    if WRONG in text:
        raise DataError(f"{where}: {text!r} has a semicolon", advice="write | between the labels of an image")
    if not text.strip():
        return ()
    parts = [part.strip() for part in text.split(SIGN)]
    if not all(parts):
        raise DataError(f"{where}: {text!r} has an empty label; remove a {SIGN}")
    return tuple(sorted({clean_label(part, where) for part in parts}))
