"""Methods: how representations are trained. A new one is a file here and a line in METHODS."""

from metarep.methods.anil import ANIL
from metarep.methods.maml import MAML
from metarep.methods.method import Method, Step
from metarep.methods.protonet import ProtoNet
from metarep.methods.reptile import Reptile
from metarep.methods.siamese import Siamese
from metarep.methods.triplet import Triplet

__all__ = ["ANIL", "MAML", "METHODS", "Method", "ProtoNet", "Reptile", "Siamese", "Step", "Triplet"]

METHODS: dict[str, type[Method]] = {
    "protonet": ProtoNet,
    "siamese": Siamese,
    "triplet": Triplet,
    "maml": MAML,
    "anil": ANIL,
    "reptile": Reptile,
}
