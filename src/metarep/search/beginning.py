"""How an index of images begins: a folder with an encoder and no vectors, made by one process."""

from pathlib import Path

from metarep.errors import MetarepError
from metarep.index.index import Index
from metarep.machine.files import locked
from metarep.weights.named import Representation

BEGINNING = {"encoder.safetensors", "encoder.safetensors.part", "index.safetensors.part", ".lock"}  # of a killed build


def begin(path: Path, representation: Representation, empty: Index) -> None:
    """Make an index of nothing, unless another process is quicker."""
    if len(empty):
        raise MetarepError(
            f"the {empty.name} index holds vectors already, and {path} does not know of what; name another table or "
            "collection"
        )
    path.mkdir(parents=True, exist_ok=True)
    others = {entry.name for entry in path.iterdir()} - BEGINNING
    if others and not is_index(path):
        raise MetarepError(f"{path} holds other things ({min(others)}) and no index; choose another folder")
    with locked(path / ".lock", busy(path)):
        if not is_index(path):
            representation.save(path / "encoder.safetensors")
            empty.save(path / "index.safetensors")


def busy(path: Path) -> MetarepError:
    """The error where another process is writing."""
    return MetarepError(f"another process is writing to {path}", advice="wait until it has ended")


def is_index(path: Path) -> bool:
    """Whether a folder holds an index of images."""
    return all((path / name).is_file() for name in ("index.safetensors", "encoder.safetensors"))
