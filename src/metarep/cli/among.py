"""Images that a model or an index was made of: nothing is written among them that would be read with them."""

import os
from collections.abc import Iterable
from pathlib import Path

from metarep.cli.options import refuse_inside
from metarep.model.gallery import Gallery


def refuse_beside(out: Path | None, images: Iterable[str]) -> None:
    """Raise if a picture would lie in a folder of images, or below it.

    Args:
        out: the picture; None if there is none.
        images: the paths of the images.

    Raises:
        MetarepError: it would.
    """
    if out is not None:
        folders = {os.path.abspath(os.path.dirname(image)) for image in images}
        refuse_inside(out, [_near(folder) for folder in _above(out) if str(folder) in folders])


def refuse_among_classes(out: Path | None, gallery: Gallery, kind: str = "file") -> None:
    """Raise if a picture would be one more image of a class folder of a model, or a folder one more class.

    Args:
        out: the picture or the folder; None if there is none.
        gallery: the images of the model. Those that lie in no folder with the name of their class are passed over.
        kind: what ``out`` is, ``file`` or ``folder``.

    Raises:
        MetarepError: it would.
    """
    if out is None:
        return
    classes = class_folders(gallery)
    above = [each.parent for each in classes] if kind == "folder" else []
    roots = {each for each in above if above.count(each) > 1}  # one alone may be any folder
    refuse_inside(out, [_near(folder) for folder in _above(out) if folder in classes or folder in roots])


def class_folders(gallery: Gallery) -> set[Path]:
    """The folders that the images of a model were read from and that have the names of their classes."""
    named = {
        (os.path.abspath(os.path.dirname(item)), gallery.names[label])
        for item, label in zip(gallery.items, gallery.classes.tolist(), strict=True)
        if os.path.dirname(item)
    }
    return {path for folder, name in named for path in (Path(folder), *Path(folder).parents) if path.name == name}


def _near(folder: Path) -> Path:
    """A folder relative to the working directory if it is below it, otherwise as it is."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _above(out: Path) -> list[Path]:
    """The folders above a path, as it is written and with its links followed."""
    return list(dict.fromkeys((*Path(os.path.abspath(out)).parents, *out.resolve().parents)))
