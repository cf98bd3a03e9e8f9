"""A model folder as one zip file."""

import tempfile
import zipfile
from typing import IO

from metarep.model.folder import ModelFolder


def pack(folder: ModelFolder, name: str) -> IO[bytes]:
    """The folder as it is at one moment, in a file without a name, at its start; inside, all lies below ``name``.

    Nothing is compressed: weights and PNGs do not get smaller.
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
