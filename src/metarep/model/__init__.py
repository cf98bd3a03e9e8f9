"""A person's own classes: gallery, answers, trust, model folder, scikit-learn estimator and export."""

from metarep.model.answers import Answer, Neighbour
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery
from metarep.model.model import Model

__all__ = ["Answer", "Gallery", "Model", "ModelFolder", "Neighbour"]
