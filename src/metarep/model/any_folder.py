"""Opens a model folder of either kind: of one class an image, or of several labels."""

from pathlib import Path

from metarep.model.folder import ModelFolder
from metarep.model.folder_kind import is_multi_label
from metarep.model.hub_copy import model_at
from metarep.model.multi_label.folder import MultiLabelFolder


def open_folder(path: Path) -> ModelFolder | MultiLabelFolder:
    """Open the model folder at a path, or one on the Hub to read.

    Args:
        path: the folder, or ``hf:USER/NAME``.

    Raises:
        MetarepError: there is no model, or it is damaged.

    >>> open_folder(Path("nothing"))
    Traceback (most recent call last):
    metarep.errors.MetarepError: nothing is not a model folder; make a model with ...
    """
    path, origin = model_at(path)
    return (MultiLabelFolder if is_multi_label(path) else ModelFolder).at(path, origin)
