"""Lists of labelled images: a CSV file of paths and labels, or a text file with a path in each line."""

import os
import re
from pathlib import Path, PureWindowsPath

from metarep.data.class_names import BadNameError, clean_name, look_alike_lines, look_alikes
from metarep.data.reading.file_list import FileList
from metarep.data.reading.folder_tree import FolderClass, FolderTree, scan
from metarep.data.reading.folder_walk import shown
from metarep.data.reading.list_lines import LINES, ONE, TABLE, Entry, located, refuse_another_group, table_of
from metarep.errors import Advice, Call, DataError, Slot, counted

SEVERAL = re.compile(r"[|;]")  # what stands between labels, where an image has several
ALL = Advice(  # what to do with a list of several labels an image
    "keep all labels with {fit}, which reads label|label",
    fit=Call("MultiLabelModel.fit", "fit", Slot("LIST"), multi_label=True),
)


def find_classes(argument: str) -> FolderTree:
    """Find the classes of a folder of images, or of a file that lists labelled images.

    Args:
        argument: the folder, for :func:`metarep.data.reading.folder_tree.scan`, or the file, for :func:`read_list`.

    Raises:
        DataError: as of these two functions.
    """
    return read_list(Path(argument)) if is_list(Path(argument).expanduser()) else scan(argument, teach=True)


def is_list(path: Path) -> bool:
    """Whether a path is a file with the name of a list of images: ``.csv``, ``.txt``, ``.tsv``, ``.lst``, ``.list``."""
    return path.suffix.lower() in TABLE + LINES and path.is_file()


def read_list(file: Path) -> FolderTree:
    r"""Read a list of labelled images.

    A **CSV file** has a first line with the names of its columns. Two of them are ``path`` and ``label``. A third may
    be ``group``: what the image shows, such as one specimen. Others are not read. Any other file has a **line for each
    image**: ``path<TAB>label``, or the path alone, whose folder is then the label. Empty lines are passed over. Paths
    are relative to the folder of the list. A path with backslashes, or with accents in another Unicode form, is found
    as well. The text is UTF-8, with or without a byte order mark, and its lines may end as on any system.

    Args:
        file: the list.

    Returns:
        The classes, by name, and their images.

    Raises:
        DataError: the file is not such a list, or one of its images does not exist, has no label, or has two, or two
            groups. The message has the number of the line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "1.png").touch()
    ...     _ = (Path(folder) / "some.csv").write_text("path,label\r\n1.png,moth\r\n")
    ...     tree = read_list(Path(folder) / "some.csv")
    >>> [(entry.name, [path.name for path in entry.files]) for entry in tree.classes]
    [('moth', ['1.png'])]
    """
    file = file.expanduser()
    name = shown(file)
    classes: dict[str, dict[Path, None]] = {}  # the paths as the keys of a dict keep their order
    by_path: dict[str, tuple[int, str]] = {}
    groups: dict[Path, str] = {}
    group_by_path: dict[str, str] = {}
    again = 0
    for entry, path in located(file):
        label = _label(entry, name)
        key = os.path.abspath(file.parent / path)
        line, before = by_path.setdefault(key, (entry.line, label))
        if before != label:
            raise DataError(
                f"{name}: {entry.path!r} has two labels, {before!r} in line {line} and {label!r} in line {entry.line}",
                advice=["mend the list", ALL],
            )
        refuse_another_group(group_by_path, key, entry, line, name)
        groups[file.parent / path] = entry.group
        again += line != entry.line
        classes.setdefault(label, {})[path] = None
    notes = repeat_lines(again, name)
    notes += look_alike_lines(look_alikes(sorted(classes)))
    folder_classes = (FolderClass(label, "train", FileList(sorted(classes[label]))) for label in sorted(classes))
    return FolderTree(file.parent, tuple(folder_classes), {}, own_splits=False, notes=tuple(notes), groups=groups)


def repeat_lines(again: int, name: str) -> list[str]:
    """Say how many lines of a list repeat an earlier one; nothing if none does."""
    return (
        [f"{counted(again, 'line')} of {name} {'repeat' if again > 1 else 'repeats'} an earlier one"] if again else []
    )


def labels_of(text: str, name: str) -> list[tuple[str, str]]:
    r"""Read the text of a CSV file of paths and labels, and look for none of the images.

    Args:
        text: the text; see :func:`read_list`.
        name: what it is called in errors.

    Returns:
        The path and the label of each line.

    Raises:
        DataError: the text is not such a list, or lists no image.

    >>> labels_of("path,label\n1.png, moth \n", "some.csv")
    [('1.png', 'moth')]
    """
    pairs = [(entry.path, _label(entry, name)) for entry in table_of(text, name)]
    if not pairs:
        raise DataError(f"{name} lists no image", advice="write a line for each image")
    return pairs


def folder_label(entry: Entry, name: str) -> str:
    """Return the folder of an image, which is the label of a line without one.

    Raises:
        DataError: the image is in no folder.
    """
    label = PureWindowsPath(entry.path).parent.name  # it knows both kinds of slashes
    if label in ("", ".."):
        where = f"{name}, line {entry.line}"
        raise DataError(f"{where}: {entry.path!r} has no label and is in no folder; write a tab and its class")
    return label


def _label(entry: Entry, name: str) -> str:
    """The class of an entry: its label, or the folder of its image."""
    label, where = entry.label, f"{name}, line {entry.line}"
    if label is None:
        label = folder_label(entry, name)
    elif not label:
        raise DataError(f"{where}: {entry.path!r} has no label; write its class or remove the line")
    elif SEVERAL.search(label):
        raise DataError(f"{where}: {label!r} looks like several labels; {ONE}", advice=["mend the list", ALL])
    return clean_label(label, where)


def clean_label(label: str, where: str) -> str:
    """Return a label as the name of a class; see :func:`metarep.data.class_names.clean_name`.

    Raises:
        DataError: it cannot be one. The message begins with ``where``.
    """
    try:
        return clean_name(label)
    except BadNameError as error:
        raise DataError(f"{where}: {error}") from error
