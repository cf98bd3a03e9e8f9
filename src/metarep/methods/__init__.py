"""Methods: how representations are trained. A new one is a file here and a line in METHODS."""

from metarep.methods.method import Method, Step
from metarep.methods.protonet import ProtoNet
from metarep.methods.siamese import Siamese
from metarep.methods.triplet import Triplet

__all__ = ["METHODS", "Method", "ProtoNet", "Siamese", "Step", "Triplet"]

METHODS: dict[str, type[Method]] = {"protonet": ProtoNet, "siamese": Siamese, "triplet": Triplet}
