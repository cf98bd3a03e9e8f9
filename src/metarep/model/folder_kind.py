"""What kind of folder a path is, before it is opened as a model folder."""

from pathlib import Path

from metarep.errors import Advice, Call, MetarepError, Slot
from metarep.model.multi_label_folder import is_multi_label
from metarep.weights.hub.contents import ENCODER, GALLERY, WEIGHTS


def refuse_other(path: Path) -> None:
    """Raise if a path is no folder of a model of one class an image.

    Args:
        path: the path.

    Raises:
        MetarepError: it is a model of several labels an image, a run folder, or something else; or it has lost its
            encoder.
    """
    if is_multi_label(path):
        raise MetarepError(
            f"{path} is a model of several labels an image, for which there is metarep predict alone",
            advice="fit a model of one class an image for all else",
        )
    if not (path / GALLERY).is_file():
        run = (path / WEIGHTS).exists()
        options = {"encoder": path} if run else {}
        out = Slot("MODEL") if path.exists() else path
        fit = Call("ModelFolder.create", "fit", Slot("PHOTOS"), out=out, **options)
        what = "a run folder and not a model folder" if run else "not a model folder"
        raise MetarepError(f"{path} is {what}", advice=Advice("make a model with {fit}", fit=fit))
    if not (path / ENCODER).is_file():
        raise MetarepError(f"{path} has lost its encoder.safetensors; fit it anew")
