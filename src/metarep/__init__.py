"""metarep learns an image representation from many small tasks, so that a new task is solved from a handful of images.

Every public name can be imported from here: ``from metarep import load_learner, evaluate``. A name is imported when it
is first used, so ``import metarep`` takes a few milliseconds and ``metarep --help`` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for editors and type checkers, which do not run __getattr__
    from metarep import losses as losses
    from metarep.answers import Answer as Answer
    from metarep.answers import Neighbour as Neighbour
    from metarep.app.api import create_app as create_app
    from metarep.augment import Augment as Augment
    from metarep.batches import Batch as Batch
    from metarep.batches import BatchShape as BatchShape
    from metarep.batches import LabelledBatch as LabelledBatch
    from metarep.batches import TaskBatch as TaskBatch
    from metarep.batches import ViewBatch as ViewBatch
    from metarep.batches import draw_batch as draw_batch
    from metarep.checkpoint import Checkpoint as Checkpoint
    from metarep.class_names import BadNameError as BadNameError
    from metarep.class_names import LookAlikeWarning as LookAlikeWarning
    from metarep.classifier import FewShotClassifier as FewShotClassifier
    from metarep.contrastive import KeyQueue as KeyQueue
    from metarep.contrastive import Projector as Projector
    from metarep.contrastive import info_nce as info_nce
    from metarep.contrastive import negative_cosine as negative_cosine
    from metarep.contrastive import nt_xent as nt_xent
    from metarep.datasets import DATASETS as DATASETS
    from metarep.datasets import load_data as load_data
    from metarep.datasets import load_dataset as load_dataset
    from metarep.datasets.depth import Depth as Depth
    from metarep.datasets.depth import DepthWarning as DepthWarning
    from metarep.datasets.folder import DuplicateImagesWarning as DuplicateImagesWarning
    from metarep.datasets.folder_tree import FolderWarning as FolderWarning
    from metarep.datasets.options import LeftOutWarning as LeftOutWarning
    from metarep.datasets.split import Split as Split
    from metarep.encoders import ENCODERS as ENCODERS
    from metarep.encoders import Conv4 as Conv4
    from metarep.encoders import EfficientNetLite as EfficientNetLite
    from metarep.encoders import Encoder as Encoder
    from metarep.encoders import Preprocess as Preprocess
    from metarep.encoders import ResNet12 as ResNet12
    from metarep.encoders import build_encoder as build_encoder
    from metarep.encoders import space_of as space_of
    from metarep.errors import DataError as DataError
    from metarep.errors import LeakageError as LeakageError
    from metarep.errors import MetarepError as MetarepError
    from metarep.errors import NotHereError as NotHereError
    from metarep.evaluation import Report as Report
    from metarep.evaluation import evaluate as evaluate
    from metarep.export import export_onnx as export_onnx
    from metarep.export import export_torch as export_torch
    from metarep.gallery import Gallery as Gallery
    from metarep.images import ImageBank as ImageBank
    from metarep.index import INDEXES as INDEXES
    from metarep.index import ExactIndex as ExactIndex
    from metarep.index import FaissIndex as FaissIndex
    from metarep.index import Index as Index
    from metarep.index import PgvectorIndex as PgvectorIndex
    from metarep.index import QdrantIndex as QdrantIndex
    from metarep.index import SpaceError as SpaceError
    from metarep.index import build_index as build_index
    from metarep.index.image_index import Hit as Hit
    from metarep.index.image_index import ImageIndex as ImageIndex
    from metarep.labelled import Judged as Judged
    from metarep.labelled import Verdict as Verdict
    from metarep.labelled import judge as judge
    from metarep.labels import Labels as Labels
    from metarep.learners import LEARNERS as LEARNERS
    from metarep.learners import GradientDescent as GradientDescent
    from metarep.learners import LabelledIndex as LabelledIndex
    from metarep.learners import Learner as Learner
    from metarep.learners import Linear as Linear
    from metarep.learners import Neighbours as Neighbours
    from metarep.learners import Pairwise as Pairwise
    from metarep.learners import Prototypes as Prototypes
    from metarep.learners import State as State
    from metarep.learners.distances import task_cross_entropy as task_cross_entropy
    from metarep.learners.logistic import NotSolvedWarning as NotSolvedWarning
    from metarep.losses import pair_loss as pair_loss
    from metarep.losses import triplet_loss as triplet_loss
    from metarep.methods import ANIL as ANIL
    from metarep.methods import BYOL as BYOL
    from metarep.methods import MAML as MAML
    from metarep.methods import METHODS as METHODS
    from metarep.methods import Baseline as Baseline
    from metarep.methods import Method as Method
    from metarep.methods import MoCo as MoCo
    from metarep.methods import ProtoNet as ProtoNet
    from metarep.methods import Reptile as Reptile
    from metarep.methods import Siamese as Siamese
    from metarep.methods import SimCLR as SimCLR
    from metarep.methods import Step as Step
    from metarep.methods import Triplet as Triplet
    from metarep.model import Model as Model
    from metarep.model_folder import ModelFolder as ModelFolder
    from metarep.pretrained import load_representation as load_representation
    from metarep.pseudo_labels import instances as instances
    from metarep.pseudo_labels import pseudo_classes as pseudo_classes
    from metarep.recipes import Recipe as Recipe
    from metarep.recipes import load_recipe as load_recipe
    from metarep.recipes import recipe_names as recipe_names
    from metarep.repeats import RepeatWarning as RepeatWarning
    from metarep.representation import Representation as Representation
    from metarep.run import RunFolder as RunFolder
    from metarep.settings import TrainSettings as TrainSettings
    from metarep.tasks import SmallClassWarning as SmallClassWarning
    from metarep.tasks import TaskIndex as TaskIndex
    from metarep.tasks import Tasks as Tasks
    from metarep.tasks import draw_tasks as draw_tasks
    from metarep.tasks import draw_varied_tasks as draw_varied_tasks
    from metarep.training import CollapsedError as CollapsedError
    from metarep.training import CollapseWarning as CollapseWarning
    from metarep.training import DivergedError as DivergedError
    from metarep.training import Outcome as Outcome
    from metarep.training import train as train
    from metarep.trust import ClassTrust as ClassTrust
    from metarep.trust import HeldOut as HeldOut
    from metarep.trust import Suspect as Suspect
    from metarep.trust import Trust as Trust
    from metarep.zoo import load as load
    from metarep.zoo import load_learner as load_learner
    from metarep.zoo import load_trained as load_trained
    from metarep.zoo import zoo_names as zoo_names

__version__ = "0.1.0"

# Modules and the public names in them. "losses" is a module itself.
_PUBLIC: dict[str, tuple[str, ...]] = {
    # Data sets: images, their labels, and pictures of more than 8 bits
    "metarep.datasets": ("DATASETS", "load_dataset"),
    "metarep.datasets.split": ("Split",),
    "metarep.datasets.depth": ("Depth", "DepthWarning"),
    "metarep.images": ("ImageBank",),
    "metarep.labels": ("Labels",),
    "metarep.pseudo_labels": ("instances", "pseudo_classes"),
    # Tasks and batches: what is drawn from a data set
    "metarep.tasks": ("SmallClassWarning", "TaskIndex", "Tasks", "draw_tasks", "draw_varied_tasks"),
    "metarep.batches": ("Batch", "BatchShape", "LabelledBatch", "TaskBatch", "ViewBatch", "draw_batch"),
    "metarep.augment": ("Augment",),
    # Encoders: from images to features
    "metarep.encoders": (
        "ENCODERS",
        "Conv4",
        "EfficientNetLite",
        "Encoder",
        "Preprocess",
        "ResNet12",
        "build_encoder",
        "space_of",
    ),
    # Learners: how a new task is solved
    "metarep.learners": (
        "LEARNERS",
        "GradientDescent",
        "LabelledIndex",
        "Learner",
        "Linear",
        "Neighbours",
        "Pairwise",
        "Prototypes",
        "State",
    ),
    # Methods: how a representation is trained; and what a method of your own is made of
    "metarep.methods": (
        "METHODS",
        "ANIL",
        "BYOL",
        "MAML",
        "Baseline",
        "Method",
        "MoCo",
        "ProtoNet",
        "Reptile",
        "Siamese",
        "SimCLR",
        "Step",
        "Triplet",
    ),
    "metarep.learners.distances": ("task_cross_entropy",),
    "metarep.losses": ("losses", "pair_loss", "triplet_loss"),
    "metarep.contrastive": ("KeyQueue", "Projector", "info_nce", "negative_cosine", "nt_xent"),
    # Training, and what it leaves
    "metarep.settings": ("TrainSettings",),
    "metarep.training": ("CollapseWarning", "CollapsedError", "DivergedError", "Outcome", "train"),
    "metarep.run": ("RunFolder",),
    "metarep.checkpoint": ("Checkpoint",),
    "metarep.zoo": ("load_learner", "load_trained", "zoo_names"),
    "metarep.recipes": ("Recipe", "load_recipe", "recipe_names"),
    # Evaluation
    "metarep.evaluation": ("Report", "evaluate"),
    # Your own classes: a model, its answers, how far to trust them, and its folder
    "metarep.classifier": ("FewShotClassifier",),
    "metarep.model": ("Model",),
    "metarep.model_folder": ("ModelFolder",),
    "metarep.repeats": ("RepeatWarning",),
    "metarep.gallery": ("Gallery",),
    "metarep.answers": ("Answer", "Neighbour"),
    "metarep.trust": ("ClassTrust", "HeldOut", "Suspect", "Trust"),
    "metarep.labelled": ("Judged", "Verdict", "judge"),
    "metarep.pretrained": ("load_representation",),
    "metarep.representation": ("Representation",),
    "metarep.export": ("export_onnx", "export_torch"),
    "metarep.app.api": ("create_app",),
    # Search: vectors by id, and folders of images
    "metarep.index": (
        "INDEXES",
        "ExactIndex",
        "FaissIndex",
        "Index",
        "PgvectorIndex",
        "QdrantIndex",
        "SpaceError",
        "build_index",
    ),
    "metarep.index.image_index": ("Hit", "ImageIndex"),
    # Errors and warnings
    "metarep.errors": ("DataError", "LeakageError", "MetarepError", "NotHereError"),
    "metarep.class_names": ("BadNameError", "LookAlikeWarning"),
    "metarep.datasets.options": ("LeftOutWarning",),
    "metarep.datasets.folder_tree": ("FolderWarning",),
    "metarep.datasets.folder": ("DuplicateImagesWarning",),
    "metarep.learners.logistic": ("NotSolvedWarning",),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
_OLD = {"load": "metarep.zoo", "load_data": "metarep.datasets"}  # to be removed in the next version
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name in _OLD:
        return getattr(import_module(_OLD[name]), name)
    if name not in _HOME:
        raise AttributeError(f"module 'metarep' has no attribute {name!r}")
    module = import_module(_HOME[name])
    value = module if _HOME[name].endswith(f".{name}") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
