"""Methods: how a representation is trained. A new method is one file in this folder and three lines below."""

from collections.abc import Iterable
from typing import Any

from metarep.encoders import Encoder
from metarep.errors import refuse_unknown_settings, unknown
from metarep.methods.anil import ANIL
from metarep.methods.baseline import Baseline
from metarep.methods.byol import BYOL
from metarep.methods.maml import MAML
from metarep.methods.method import Method, Step
from metarep.methods.moco import MoCo
from metarep.methods.protonet import ProtoNet
from metarep.methods.reptile import Reptile
from metarep.methods.siamese import Siamese
from metarep.methods.simclr import SimCLR
from metarep.methods.supcon import SupCon
from metarep.methods.triplet import Triplet

__all__ = [
    "ANIL",
    "BYOL",
    "MAML",
    "METHODS",
    "Baseline",
    "Method",
    "MoCo",
    "ProtoNet",
    "Reptile",
    "Siamese",
    "SimCLR",
    "Step",
    "SupCon",
    "Triplet",
    "build_method",
    "check_settings",
]

METHODS: dict[str, type[Method[Any]]] = {
    "protonet": ProtoNet,
    "siamese": Siamese,
    "triplet": Triplet,
    "baseline": Baseline,
    "maml": MAML,
    "anil": ANIL,
    "reptile": Reptile,
    "simclr": SimCLR,
    "moco": MoCo,
    "byol": BYOL,
    "supcon": SupCon,
}
"""The training methods by the name that the command line, recipes and checkpoints use."""


def build_method(name: str, encoder: Encoder, settings: dict[str, Any]) -> Method:
    """A method by name, with its own settings.

    Raises:
        MetarepError: an unknown method or setting, with the nearest name.
    """
    check_settings(name, settings)
    return METHODS[name](encoder, **settings)


def check_settings(name: str, settings: Iterable[str]) -> None:
    """Refuse a method or a setting that does not exist, before any data are loaded.

    Raises:
        MetarepError: an unknown method or setting, with the nearest name.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    refuse_unknown_settings(name, METHODS[name].__init__, settings)
