"""Models on the Hub: where the copy of one is, and why it cannot be changed."""

from pathlib import Path

from metarep.errors import Advice, Call, MetarepError, Slot
from metarep.weights.hub.contents import GALLERY, LABELS
from metarep.weights.hub.fetch import fetch
from metarep.weights.hub.names import HubName, is_hub_name


def model_at(path: Path) -> tuple[Path, str]:
    """The folder of a model, and its name with the hash of its commit if it is on the Hub.

    Args:
        path: a folder, or ``hf:USER/NAME``.

    Raises:
        MetarepError: the Hub has no such model, or a run of this name; see :func:`metarep.weights.hub.fetch.fetch`.

    >>> model_at(Path("moths"))[1]
    ''
    """
    if not is_hub_name(path):
        return path, ""
    found = fetch(path)
    if not {GALLERY, LABELS} & set(found.files):
        fit = Call("ModelFolder.create", "fit", Slot("PHOTOS"), out=Slot("MODEL"), encoder=found.name)
        what = f"{found.name} is a run or an encoder and not a model"
        raise MetarepError(what, advice=Advice("make a model with {fit}", fit=fit))
    return found.folder, found.name


def name_of(path: Path, origin: str) -> str:
    """The name of a model: the last part of its path, or of its name on the Hub.

    >>> name_of(Path("models/moths"), ""), name_of(Path("snapshots/0"), "hf:ann/flies@v1")
    ('moths', 'flies')
    """
    return HubName.read(origin).repo.partition("/")[2] if origin else path.resolve().name


def refuse_copy(origin: str) -> None:
    """Raise if a model is a copy from the Hub, whose files belong to the Hub's cache.

    Args:
        origin: its name on the Hub; empty for other models.

    Raises:
        MetarepError: it is one.
    """
    if origin:
        pull = Call("pull", "pull", origin, out=Slot("MODEL"))
        what = f"{origin} is a copy from the Hub, which cannot be changed"
        raise MetarepError(what, advice=Advice("make a model folder of your own with {pull}", pull=pull))
