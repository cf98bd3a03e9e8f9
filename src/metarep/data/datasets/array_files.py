"""Array files: read all images of a part from one pickle or ``.npz`` file, as several benchmarks are distributed."""

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from metarep.data.datasets.archives import DAMAGE, refuse_bombs
from metarep.data.datasets.pickles import read_pickle
from metarep.errors import DataError, one_line


def read_pickled(path: Path) -> tuple[UInt8[np.ndarray, "n 3 h w"], list[str]]:
    """Read images and their classes from a pickled dict of ``image_data`` and ``class_dict`` (class -> rows).

    Returns:
        The images, and the name of the class of each image.

    Raises:
        DataError: the file is damaged, has another content, or has an image without a class.
    """
    with open(path, "rb") as file:
        content = read_pickle(file, str(path))
    try:
        images, members = content["image_data"], content["class_dict"]
        classes = [""] * len(images)
        for name, rows in members.items():
            for row in rows:
                classes[row] = str(name)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path} is not a dict of image_data and class_dict (name -> rows): {error!r}") from error
    if "" in classes:
        raise DataError(f"{path}: image {classes.index('')} is not in any class of class_dict; add it or remove it")
    return _channels_first(images, path), classes


def read_npz(path: Path) -> tuple[UInt8[np.ndarray, "n 3 h w"], list[str]]:
    """Read images and their classes from a ``.npz`` file of ``images`` and ``labels`` (numbers or names).

    Returns:
        The images, and the name of the class of each image.

    Raises:
        DataError: the file is damaged or has another content.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_bombs(archive)
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            images, labels = content["images"], content["labels"]
    except DataError:
        raise
    except (KeyError, TypeError, OSError, SyntaxError, RuntimeError, MemoryError, *DAMAGE) as error:
        raise DataError(
            f"{path} is damaged, or is not a .npz file with the arrays images and labels ({one_line(error)}); write it "
            "again"
        ) from error
    if labels.ndim != 1 or len(labels) != len(images):
        raise DataError(
            f"{path}: labels have shape {labels.shape}, but there are {len(images)} images; give one label for each"
        )
    return _channels_first(images, path), [str(label) for label in labels.tolist()]


def _channels_first(images: object, path: Path) -> np.ndarray:
    """Check RGB images of shape ``(n, 3, h, w)`` or ``(n, h, w, 3)``, and return them channels first."""
    if not isinstance(images, np.ndarray):
        raise DataError(f"{path}: the images are a {type(images).__name__} and not an array; save them as one")
    if images.dtype != np.uint8 or images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]) or not images.size:
        raise DataError(f"{path}: images must be uint8 (n, h, w, 3), not {images.dtype} {images.shape}")
    return images if images.shape[1] == 3 else images.transpose(0, 3, 1, 2)
