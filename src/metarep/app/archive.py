"""A model folder as one zip file."""

import tempfile
import zipfile
from typing import IO

from metarep.model.folder import ModelFolder


def pack(folder: ModelFolder, name: str) -> IO[bytes]:
    """Write a model folder into a temporary zip file, and return the file, open at its start.

    The folder is locked meanwhile, so that the archive holds one state of it. Nothing is compressed, because weights
    and PNG files do not get smaller. The caller closes the file, which also deletes it.

    Args:
        folder: the model folder.
        name: the folder inside the archive that everything lies in.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with folder.writing(), zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for part in ("encoder.safetensors", "gallery.safetensors"):
            archive.write(folder.path / part, f"{name}/{part}")
        for number in folder.model.gallery.ids.tolist():
            if folder.image(number).is_file():
                archive.write(folder.image(number), f"{name}/images/{number}.png")
    file.seek(0)
    return file
