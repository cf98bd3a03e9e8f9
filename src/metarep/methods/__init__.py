"""Methods: how a representation is trained. A new method is one file in this folder and three lines below."""

from typing import Any

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
    "Triplet",
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
}
"""The training methods by the name that the command line, recipes and checkpoints use."""
