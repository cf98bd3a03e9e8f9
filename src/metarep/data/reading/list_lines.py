"""Lines of a list of images: the path, label and group in each, as they stand there, and where its image is."""

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from metarep.data.reading.folder_walk import shown
from metarep.errors import DataError, counted

TABLE = (".csv",)
LINES = (".txt", ".tsv", ".lst", ".list")
COLUMNS, GROUP = ("path", "label"), "group"
OTHERS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # what else stands between the columns of a table
ONE = "an image has one class here"


@dataclass(frozen=True)
class Entry:
    """A line of a list.

    Args:
        line: its number.
        path: the path as it stands there.
        label: the label as it stands there; None if there is none.
        group: what the image shows, such as one specimen; empty if nothing is said.
    """

    line: int
    path: str
    label: str | None
    group: str = ""


def located(file: Path) -> list[tuple[Entry, Path]]:
    """Return the lines of a list, each with the path of its image, relative to the folder of the list.

    Raises:
        DataError: the file is not a list, it lists no image, or one of its images does not exist.
    """
    name, text = shown(file), _text(file)
    entries = list(table_of(text, name) if file.suffix.lower() in TABLE else _lines(text, name))
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


def refuse_another_group(groups: dict[str, str], key: str, entry: Entry, first: int, name: str) -> None:
    """Note the group of an image, and raise if an earlier line gives it another.

    Args:
        groups: those of earlier lines, by the path of the image; that of this line is added.
        key: the path of the image.
        entry: the line.
        first: the number of the first line of this image.
        name: the list.

    Raises:
        DataError: the two groups differ.
    """
    if groups.setdefault(key, entry.group) != entry.group:
        where = f"{name}, line {entry.line}: {entry.path!r}"
        raise DataError(f"{where} has another group than in line {first}; mend the list")


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


def table_of(text: str, name: str) -> Iterator[Entry]:
    """Yield the entries of the text of a CSV file.

    Args:
        text: the text.
        name: what it is called in errors.

    Raises:
        DataError: it is no such table, or a line has no path. The message has the number of the line.
    """
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next((row for row in table if any(row)), [])]
        grouped = GROUP in [cell.casefold() for cell in header]
        columns = (*COLUMNS, GROUP) if grouped else COLUMNS
        indices = [_column_index(column, header, name) for column in columns]
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
