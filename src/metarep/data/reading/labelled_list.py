"""Lists of labelled images: a CSV file of paths and labels, or a text file with a path in each line."""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from metarep.data.class_names import BadNameError, clean_name, look_alike_lines, look_alikes
from metarep.data.reading.file_list import FileList
from metarep.data.reading.folder_tree import FolderClass, FolderTree, scan
from metarep.data.reading.folder_walk import shown
from metarep.errors import Advice, Call, DataError, Slot, counted

TABLE = (".csv",)
LINES = (".txt", ".tsv", ".lst", ".list")
COLUMNS = ("path", "label")
OTHERS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # what else stands between the columns of a table
SEVERAL = re.compile(r"[|;]")  # what stands between labels, where an image has several
ONE = "an image has one class here"
ALL = Advice(  # what to do with a list of several labels an image
    "keep all labels with {fit}, which reads label|label",
    fit=Call("MultiLabelModel.fit", "fit", Slot("LIST"), multi_label=True),
)


@dataclass(frozen=True)
class Entry:
    """A line of a list.

    Args:
        line: its number.
        path: the path as it stands there.
        label: the label as it stands there; None if there is none.
    """

    line: int
    path: str
    label: str | None


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

    A **CSV file** has a first line with the names of its columns. Two of them are ``path`` and ``label``; others are
    not read. Any other file has a **line for each image**: ``path<TAB>label``, or the path alone, whose folder is then
    the label. Empty lines are passed over. Paths are relative to the folder of the list. A path with backslashes, or
    with accents in another Unicode form, is found as well. The text is UTF-8, with or without a byte order mark,
    and its lines may end as on any system.

    Args:
        file: the list.

    Returns:
        The classes, by name, and their images.

    Raises:
        DataError: the file is not such a list, or one of its images does not exist, has no label, or has two. The
            message has the number of the line.

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
    again = 0
    for entry, path in located(file):
        label = _label(entry, name)
        line, before = by_path.setdefault(os.path.abspath(file.parent / path), (entry.line, label))
        if before != label:
            raise DataError(
                f"{name}: {entry.path!r} has two labels, {before!r} in line {line} and {label!r} in line {entry.line}",
                advice=["mend the list", ALL],
            )
        again += line != entry.line
        classes.setdefault(label, {})[path] = None
    notes = repeat_lines(again, name)
    notes += look_alike_lines(look_alikes(sorted(classes)))
    folder_classes = (FolderClass(label, "train", FileList(sorted(classes[label]))) for label in sorted(classes))
    return FolderTree(file.parent, tuple(folder_classes), {}, own_splits=False, notes=tuple(notes))


def located(file: Path) -> list[tuple[Entry, Path]]:
    """Return the lines of a list, each with the path of its image, relative to the folder of the list.

    Raises:
        DataError: the file is not a list, it lists no image, or one of its images does not exist.
    """
    name, text = shown(file), _text(file)
    entries = list(_table(text, name) if file.suffix.lower() in TABLE else _lines(text, name))
    if not entries:
        raise DataError(f"{name} lists no image", advice="write a line for each image")
    images: list[tuple[Entry, Path]] = []
    lost: list[tuple[Entry, DataError]] = []
    for entry in entries:
        try:
            images.append((entry, _image_path(file, entry)))
        except DataError as error:
            lost.append((entry, error))
    if lost:
        more = f" ({counted(len(lost) - 1, 'more line')} like this)" if len(lost) > 1 else ""
        raise DataError(f"{name}, line {lost[0][0].line}: {lost[0][1].message}{more}", advice=lost[0][1].advice)
    return images


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
    pairs = [(entry.path, _label(entry, name)) for entry in _table(text, name)]
    if not pairs:
        raise DataError(f"{name} lists no image", advice="write a line for each image")
    return pairs


def _text(file: Path) -> str:
    """The text of a list, whose encoding is checked."""
    save = "save it as text in UTF-8"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(file)} cannot be read ({error.strerror})", advice="check its permissions") from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{shown(file)} is in UTF-16, and not in UTF-8", advice=save)
    if b"\0" in content:
        kind = "a spreadsheet or an archive" if content[:2] == b"PK" else "not text"
        raise DataError(f"{shown(file)} is {kind}", advice="save it as text, with commas between the columns")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", content[: error.start])) + 1
        raise DataError(f"{shown(file)} is not in UTF-8: see line {line}", advice=save) from error


def _table(text: str, name: str) -> Iterator[Entry]:
    """The entries of a CSV file."""
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next((row for row in table if any(row)), [])]
        indices = [_column_index(column, header, name) for column in COLUMNS]
        for row in table:
            if not any(cell.strip() for cell in row):
                continue
            line = table.line_num
            if len(row) > len(header):
                raise DataError(
                    f"{name}, line {line} has {counted(len(row), 'column')}, and the first line has {len(header)}; put "
                    f"quotes around a name that holds a comma ({ONE})"
                )
            cells = [row[index].strip() if index < len(row) else "" for index in indices]
            if not cells[0]:
                raise DataError(f"{name}, line {line} has no path; write one or remove the line")
            yield Entry(line, *cells)
    except csv.Error as error:
        raise DataError(f"{name}, line {table.line_num} cannot be read as CSV: {error}; check its quotes") from error


def _column_index(column: str, header: list[str], name: str) -> int:
    """The index of a column.

    Raises:
        DataError: the header does not have the column exactly once.
    """
    names = [cell.casefold() for cell in header]
    if names.count(column) == 1:
        return names.index(column)
    if column in names:
        raise DataError(f"{name} has two columns {column!r}; {ONE}")
    whole = ",".join(header)
    if not whole:
        raise DataError(f"{name} is empty", advice="its first line must be path,label")
    for sign, called in OTHERS.items():
        if len(header) == 1 and sign in whole:
            raise DataError(f"{name} has {called} between its columns", advice="save it with commas")
    if len(header) == len(COLUMNS) and Path(header[0]).suffix:
        raise DataError(f"{name} begins with an image", advice="write a first line above it: path,label")
    shown_header = ", ".join(map(repr, header[:6])) + ", ..." * (len(header) > 6)
    raise DataError(f"{name} has no column {column!r}, but {shown_header}", advice="its first line must be path,label")


def _lines(text: str, name: str) -> Iterator[Entry]:
    """The entries of a file with a line for each image."""
    for line, content in enumerate(re.split("\r\n|\r|\n", text), 1):
        if not content.strip():
            continue
        path, *labels = content.split("\t")
        if not path.strip():
            raise DataError(f"{name}, line {line} has no path; write one or remove the line")
        if len(labels) > 1:
            raise DataError(f"{name}, line {line} has {len(labels)} labels; {ONE}")
        yield Entry(line, path.strip(), labels[0].strip() if labels else None)


def _image_path(file: Path, entry: Entry) -> Path:
    """The path of the image of an entry, relative to the folder of the list."""
    folder, given = file.parent, entry.path
    for path in (given, given.replace("\\", "/")):
        for form in (path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path)):
            if _exists(Path.is_file, folder / form):
                return Path(form)
    if _exists(Path.is_dir, folder / given):
        raise DataError(f"{given!r} is a folder", advice="write a line for each of its images")
    for sign in (" ", ",", ";"):
        before, _, label = given.rpartition(sign)
        if before and _exists(Path.is_file, folder / before.strip()):
            raise DataError(
                f"there is no image {given!r}, but {before.strip()!r}; write a tab before {label.strip()!r}"
            )
    raise DataError(f"there is no image {given!r} in {shown(folder)!r}", advice="paths are relative to the list")


def _exists(kind: Callable[[Path], bool], path: Path) -> bool:
    """Whether there is a file or a folder of this name; False if the name is too long for the system."""
    try:
        return kind(path)
    except OSError:
        return False


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
