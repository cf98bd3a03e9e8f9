"""Creates the folder of an image index: it holds an encoder and no vectors yet, and one process makes it."""

from pathlib import Path

from metarep.errors import MetarepError
from metarep.index.index import Index
from metarep.machine.files import locked
from metarep.weights.named import Representation

BEGINNING = {
    "encoder.safetensors",
    "encoder.safetensors.part",
    "index.safetensors.part",
    ".lock",
}  # what a killed build may leave


def begin(path: Path, representation: Representation, empty: Index) -> None:
    """Creates an empty image index at ``path``, unless another process has created it first.

    Args:
        path: the folder; it is made if it does not exist.
        representation: the encoder that is stored in the folder.
        empty: the vector index that is stored in the folder.

    Raises:
        MetarepError: ``empty`` holds vectors, the folder holds other files, or another process is writing to it.
    """
    if len(empty):
        raise MetarepError(
            f"the {empty.name} index holds vectors already, and {path} does not say of which images; name another "
            "table or collection"
        )
    path.mkdir(parents=True, exist_ok=True)
    others = {entry.name for entry in path.iterdir()} - BEGINNING
    if others and not is_index(path):
        raise MetarepError(f"{path} holds other files ({min(others)}) and not an index; choose another folder")
    with locked(path / ".lock", busy(path)):
        if not is_index(path):
            representation.save(path / "encoder.safetensors")
            empty.save(path / "index.safetensors")


def busy(path: Path) -> MetarepError:
    """Returns the error for a folder that another process is writing to."""
    return MetarepError(f"another process is writing to {path}", advice="wait until it has ended")


def is_index(path: Path) -> bool:
    """Whether a folder holds an image index."""
    return all((path / name).is_file() for name in ("index.safetensors", "encoder.safetensors"))
