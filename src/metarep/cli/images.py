"""The images that a command is given, as files and as folders."""

from pathlib import Path

from metarep.data.reading.folder_walk import image_files, missing
from metarep.data.reading.formats import EXTENSIONS
from metarep.errors import DataError


def find_images(given: list[str]) -> list[Path]:
    """List the given images, and all images below the given folders.

    Raises:
        DataError: a file does not exist, or a folder has no images.
    """
    images: list[Path] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            inside = list(image_files(path))
            if not inside:
                raise DataError(f"{name} holds no images ({', '.join(sorted(EXTENSIONS))})")
            images += inside
        elif not path.exists():
            raise missing("image", path)
        else:
            images.append(path)
    return images
