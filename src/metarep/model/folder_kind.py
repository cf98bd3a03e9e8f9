"""What kind of folder a path is, before it is opened as a model folder."""

from pathlib import Path

from metarep.errors import Advice, Call, MetarepError, Slot
from metarep.weights.hub.contents import GALLERY, LABELS, WEIGHTS


def is_multi_label(path: Path) -> bool:
    """Whether a path is the folder of a model of several labels an image."""
    return (path / LABELS).is_file()


def refuse_other(path: Path) -> None:
    """Raise if a path is no folder of a model of one class an image.

    Args:
        path: the path.

    Raises:
        MetarepError: it is a model of several labels an image, a run folder, or something else.
    """
    if is_multi_label(path):
        raise MetarepError(
            f"{path} is a model of several labels an image, and this needs a model of one class an image",
            advice="fit one of these",
        )
    if not (path / GALLERY).is_file():
        run = (path / WEIGHTS).exists()
        options = {"encoder": path} if run else {}
        out = Slot("MODEL") if path.exists() else path
        fit = Call("ModelFolder.create", "fit", Slot("PHOTOS"), out=out, **options)
        what = "a run folder and not a model folder" if run else "not a model folder"
        raise MetarepError(f"{path} is {what}", advice=Advice("make a model with {fit}", fit=fit))
