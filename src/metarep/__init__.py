"""metarep learns an image representation from many small tasks, so that a new task is solved from a handful of images.

Names are imported when first used, so that ``import metarep`` costs nothing and ``metarep --help`` needs no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "ImageBank": "images",
    "Labels": "labels",
    "TaskIndex": "tasks",
    "draw_tasks": "tasks",
    "draw_varied_tasks": "tasks",
    "Augment": "augment",
    "Encoder": "encoders",
    "Preprocess": "encoders",
    "build_encoder": "encoders",
    "Learner": "learners",
    "Prototypes": "learners",
    "Neighbours": "learners",
    "Linear": "learners",
    "GradientDescent": "learners",
    "Index": "index",
    "build_index": "index",
    "LabelledIndex": "learners",
    "Method": "methods",
    "METHODS": "methods",
    "ProtoNet": "methods",
    "Siamese": "methods",
    "Triplet": "methods",
    "Baseline": "methods",
    "MAML": "methods",
    "ANIL": "methods",
    "Reptile": "methods",
    "SimCLR": "methods",
    "MoCo": "methods",
    "BYOL": "methods",
    "TrainSettings": "settings",
    "train": "training",
    "evaluate": "evaluation",
    "Report": "evaluation",
    "FewShotClassifier": "classifier",
    "load": "zoo",
    "load_data": "datasets",
    "MetarepError": "errors",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOME:
        raise AttributeError(f"module 'metarep' has no attribute {name!r}")
    value = getattr(import_module(f"metarep.{_HOME[name]}"), "load" if name == "load_data" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
