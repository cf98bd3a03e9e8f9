"""Zip files of labelled images: pictures and a list of their classes, as a page in a browser saves them."""

from pathlib import Path

from metarep.data.datasets.archives import open_zip, read_entry
from metarep.data.reading.folder_walk import shown
from metarep.data.reading.labelled_list import labels_of
from metarep.errors import DataError

LIST = "labels.csv"
MOST = 1 << 30  # bytes of all pictures together, which are read into memory


def is_labelled_zip(path: Path) -> bool:
    """Whether a path is a file with the name of a zip file."""
    return path.suffix.lower() == ".zip" and path.is_file()


def read_labelled_zip(path: Path) -> list[tuple[bytes, str, str]]:
    r"""Read a zip file of labelled images, without unpacking it to disk.

    It holds ``labels.csv`` with the columns ``path`` and ``label``, and the pictures at these paths; see
    :func:`metarep.data.reading.labelled_list.read_list`.

    Args:
        path: the file.

    Returns:
        The bytes of each picture, its class, and the name of the picture.

    Raises:
        DataError: the file is not a zip, is damaged, has no list, or lacks a picture; or the pictures are too large.

    >>> import tempfile, zipfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "added.zip"
    ...     with zipfile.ZipFile(path, "w") as file:
    ...         file.writestr("labels.csv", "path,label\r\n1.png,moth\r\n")
    ...         file.writestr("1.png", b"a picture")
    ...     [(content, label) for content, label, _ in read_labelled_zip(path)]
    [(b'a picture', 'moth')]
    """
    name = shown(path)
    with open_zip(path) as archive:
        names = set(archive.namelist())
        if LIST not in names:
            raise DataError(
                f"{name} has no {LIST}, so it is not what a page has saved", advice="unpack it and give its folders"
            )
        try:
            text = read_entry(archive, LIST).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{LIST} of {name} is not in UTF-8", advice="save it as text in UTF-8") from error
        pairs, size = labels_of(text, f"{LIST} of {name}"), 0
        images = []
        for picture, label in pairs:
            if picture not in names:
                raise DataError(
                    f"{name} has no {picture!r}, which its {LIST} names", advice="save it on the page again"
                )
            size += archive.getinfo(picture).file_size
            if size > MOST:
                raise DataError(f"the pictures of {name} have more than {MOST >> 30} GiB", advice="unpack it")
            images.append((read_entry(archive, picture), label, f"{path}/{picture}"))
        return images
