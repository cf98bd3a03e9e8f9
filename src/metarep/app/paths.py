"""Paths in responses: where a model folder lies on this machine is nobody's business."""

import os
from pathlib import Path


def without_path(text: str, folder: Path) -> str:
    """Return a text without the path of a model folder, on one line.

    Only the absolute path is looked for. A relative one, such as ``m``, may be part of any word.

    Args:
        text: a message.
        folder: the model folder.

    >>> without_path("/srv/moths/gallery.safetensors is damaged, in /srv/moths", Path("/srv/moths"))
    'gallery.safetensors is damaged, in the model'
    >>> without_path("no class hawkmoth", Path("moth"))
    'no class hawkmoth'
    """
    where = os.path.abspath(folder)
    return " ".join(text.replace(f"{where}{os.sep}", "").replace(where, "the model").split())
