"""A model folder as one zip file."""

import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

from metarep.model.folder import ModelFolder
from metarep.model.store import ModelStore
from metarep.weights.hub.contents import ENCODER


def pack(folder: ModelStore[Any], name: str) -> IO[bytes]:
    """Write a model folder into a temporary zip file, and return the file, open at its start.

    The folder is locked meanwhile, so that the archive holds one state of it. Nothing is compressed, because weights
    and PNG files do not get smaller. The caller closes the file, which also deletes it.

    Args:
        folder: the model folder.
        name: the folder inside the archive that everything lies in.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with folder.writing(), zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for part in (ENCODER, folder.FILE):
            archive.write(folder.path / part, f"{name}/{part}")
        if isinstance(folder, ModelFolder):
            for picture in filter(Path.is_file, map(folder.image, folder.model.gallery.ids.tolist())):
                archive.write(picture, f"{name}/images/{picture.name}")
    file.seek(0)
    return file
