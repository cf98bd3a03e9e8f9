"""metarep learns an image representation from many small tasks, so that a new task is solved from a handful of images.

All public names can be imported from here. Each is loaded at its first use, so ``metarep --help`` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from metarep.machine.version import __version__ as __version__

if TYPE_CHECKING:  # the same names for editors and type checkers, which do not run __getattr__
    from metarep.app.api import create_app as create_app
    from metarep.data.augment import Augment as Augment
    from metarep.data.banks.writer import BankWriter as BankWriter
    from metarep.data.batch import Batch as Batch
    from metarep.data.batch import BatchShape as BatchShape
    from metarep.data.batch import LabelledBatch as LabelledBatch
    from metarep.data.batch import LabelledViewBatch as LabelledViewBatch
    from metarep.data.batch import TaskBatch as TaskBatch
    from metarep.data.batch import ViewBatch as ViewBatch
    from metarep.data.batches import draw_batch as draw_batch
    from metarep.data.class_names import BadNameError as BadNameError
    from metarep.data.class_names import LookAlikeWarning as LookAlikeWarning
    from metarep.data.datasets import DATASETS as DATASETS
    from metarep.data.datasets import load_data as load_data
    from metarep.data.datasets import load_dataset as load_dataset
    from metarep.data.datasets.folder import DuplicateImagesWarning as DuplicateImagesWarning
    from metarep.data.datasets.options import LeftOutWarning as LeftOutWarning
    from metarep.data.images import ImageBank as ImageBank
    from metarep.data.labels import Labels as Labels
    from metarep.data.reading.depth import Depth as Depth
    from metarep.data.reading.depth import DepthWarning as DepthWarning
    from metarep.data.reading.folder_tree import FolderWarning as FolderWarning
    from metarep.data.split import Split as Split
    from metarep.data.superclasses import draw_tasks_within as draw_tasks_within
    from metarep.data.superclasses import superclasses as superclasses
    from metarep.data.task_file import load_tasks as load_tasks
    from metarep.data.task_file import save_tasks as save_tasks
    from metarep.data.tasks import SmallClassWarning as SmallClassWarning
    from metarep.data.tasks import TaskIndex as TaskIndex
    from metarep.data.tasks import Tasks as Tasks
    from metarep.data.tasks import draw_tasks as draw_tasks
    from metarep.data.tasks import draw_varied_tasks as draw_varied_tasks
    from metarep.data.unbalanced import draw_unbalanced_tasks as draw_unbalanced_tasks
    from metarep.encoders import ENCODERS as ENCODERS
    from metarep.encoders import Conv4 as Conv4
    from metarep.encoders import EfficientNetLite as EfficientNetLite
    from metarep.encoders import Encoder as Encoder
    from metarep.encoders import Preprocess as Preprocess
    from metarep.encoders import ResNet12 as ResNet12
    from metarep.encoders import ViT as ViT
    from metarep.encoders import build_encoder as build_encoder
    from metarep.encoders import keep_feature_means as keep_feature_means
    from metarep.encoders import keep_feature_spread as keep_feature_spread
    from metarep.encoders import keep_view_spread as keep_view_spread
    from metarep.encoders import space_of as space_of
    from metarep.errors import Advice as Advice
    from metarep.errors import DataError as DataError
    from metarep.errors import LeakageError as LeakageError
    from metarep.errors import MetarepError as MetarepError
    from metarep.errors import NotHereError as NotHereError
    from metarep.errors import TooLargeError as TooLargeError
    from metarep.experiments.card import run_card as run_card
    from metarep.experiments.compare import Compared as Compared
    from metarep.experiments.compare import Comparison as Comparison
    from metarep.experiments.compare import compare as compare
    from metarep.experiments.measurement.evaluation import evaluate as evaluate
    from metarep.experiments.measurement.features import evaluate_features as evaluate_features
    from metarep.experiments.measurement.reliability import Reliability as Reliability
    from metarep.experiments.measurement.report import Report as Report
    from metarep.experiments.measurement.retrieval import FarFeaturesWarning as FarFeaturesWarning
    from metarep.experiments.measurement.retrieval import Retrieval as Retrieval
    from metarep.experiments.measurement.retrieval import measure_retrieval as measure_retrieval
    from metarep.experiments.pseudo_labels import instances as instances
    from metarep.experiments.pseudo_labels import pseudo_classes as pseudo_classes
    from metarep.experiments.readings import CollapsedError as CollapsedError
    from metarep.experiments.readings import CollapseWarning as CollapseWarning
    from metarep.experiments.readings import DivergedError as DivergedError
    from metarep.experiments.recipes import Recipe as Recipe
    from metarep.experiments.recipes import load_recipe as load_recipe
    from metarep.experiments.recipes import recipe_names as recipe_names
    from metarep.experiments.run_folder import RunFolder as RunFolder
    from metarep.experiments.saved_states import DamagedStateWarning as DamagedStateWarning
    from metarep.experiments.training import Outcome as Outcome
    from metarep.experiments.training import train as train
    from metarep.index import INDEXES as INDEXES
    from metarep.index import ExactIndex as ExactIndex
    from metarep.index import FaissIndex as FaissIndex
    from metarep.index import Index as Index
    from metarep.index import PgvectorIndex as PgvectorIndex
    from metarep.index import QdrantIndex as QdrantIndex
    from metarep.index import build_index as build_index
    from metarep.index.index import SpaceError as SpaceError
    from metarep.learners import BDCSPN as BDCSPN
    from metarep.learners import LEARNERS as LEARNERS
    from metarep.learners import AugmentedLinear as AugmentedLinear
    from metarep.learners import AveragedPrototypes as AveragedPrototypes
    from metarep.learners import GradientDescent as GradientDescent
    from metarep.learners import LabelledIndex as LabelledIndex
    from metarep.learners import Learner as Learner
    from metarep.learners import Linear as Linear
    from metarep.learners import Neighbours as Neighbours
    from metarep.learners import Pairwise as Pairwise
    from metarep.learners import Prototypes as Prototypes
    from metarep.learners import SimpleShot as SimpleShot
    from metarep.learners import State as State
    from metarep.learners.distances import task_cross_entropy as task_cross_entropy
    from metarep.learners.logistic import NotSolvedWarning as NotSolvedWarning
    from metarep.machine.ranks import joined as joined
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
    from metarep.methods import SupCon as SupCon
    from metarep.methods import Triplet as Triplet
    from metarep.methods import losses as losses
    from metarep.methods.contrastive import KeyQueue as KeyQueue
    from metarep.methods.contrastive import Projector as Projector
    from metarep.methods.contrastive import info_nce as info_nce
    from metarep.methods.contrastive import negative_cosine as negative_cosine
    from metarep.methods.contrastive import nt_xent as nt_xent
    from metarep.methods.contrastive import sup_con as sup_con
    from metarep.methods.losses import distillation_loss as distillation_loss
    from metarep.methods.losses import pair_loss as pair_loss
    from metarep.methods.losses import triplet_loss as triplet_loss
    from metarep.model.answers import Answer as Answer
    from metarep.model.answers import Neighbour as Neighbour
    from metarep.model.card import model_card as model_card
    from metarep.model.classifier import FewShotClassifier as FewShotClassifier
    from metarep.model.export import export_onnx as export_onnx
    from metarep.model.export import export_torch as export_torch
    from metarep.model.folder import ModelFolder as ModelFolder
    from metarep.model.gallery import Gallery as Gallery
    from metarep.model.labelled import Judged as Judged
    from metarep.model.labelled import Verdict as Verdict
    from metarep.model.labelled import judge as judge
    from metarep.model.model import Model as Model
    from metarep.model.multi_label.folder import MultiLabelFolder as MultiLabelFolder
    from metarep.model.multi_label.model import MultiLabelModel as MultiLabelModel
    from metarep.model.repeats import RepeatWarning as RepeatWarning
    from metarep.model.suggestions import ClassNeed as ClassNeed
    from metarep.model.suggestions import Suggestion as Suggestion
    from metarep.model.suggestions import class_needs as class_needs
    from metarep.model.suggestions import suggest as suggest
    from metarep.model.trust.suspects import Suspect as Suspect
    from metarep.model.trust.trust import ClassTrust as ClassTrust
    from metarep.model.trust.trust import HeldOut as HeldOut
    from metarep.model.trust.trust import Trust as Trust
    from metarep.model.tuning.tune import tune_model as tune_model
    from metarep.model.tuning.unlabelled import adapt_model as adapt_model
    from metarep.search.image_index import Hit as Hit
    from metarep.search.image_index import ImageIndex as ImageIndex
    from metarep.weights.card import CardWarning as CardWarning
    from metarep.weights.checkpoint import Checkpoint as Checkpoint
    from metarep.weights.hub.fetch import Fetched as Fetched
    from metarep.weights.hub.fetch import HubWarning as HubWarning
    from metarep.weights.hub.fetch import pull as pull
    from metarep.weights.hub.push import Pushed as Pushed
    from metarep.weights.hub.push import push as push
    from metarep.weights.named import load_representation as load_representation
    from metarep.weights.record import RunRecord as RunRecord
    from metarep.weights.representation import Representation as Representation
    from metarep.weights.settings import TrainSettings as TrainSettings
    from metarep.weights.shipped import load as load
    from metarep.weights.shipped import load_learner as load_learner
    from metarep.weights.shipped import load_trained as load_trained
    from metarep.weights.shipped import zoo_names as zoo_names


# Modules and the public names in them. "losses" is a module itself.
_PUBLIC: dict[str, tuple[str, ...]] = {
    # Data sets: images, their labels, and pictures of more than 8 bits
    "metarep.data.datasets": ("DATASETS", "load_dataset"),
    "metarep.data.split": ("Split",),
    "metarep.data.reading.depth": ("Depth", "DepthWarning"),
    "metarep.data.images": ("ImageBank",),
    "metarep.data.banks.writer": ("BankWriter",),
    "metarep.data.labels": ("Labels",),
    "metarep.experiments.pseudo_labels": ("instances", "pseudo_classes"),
    # Tasks and batches: what is drawn from a data set
    "metarep.data.tasks": ("SmallClassWarning", "TaskIndex", "Tasks", "draw_tasks", "draw_varied_tasks"),
    "metarep.data.superclasses": ("draw_tasks_within", "superclasses"),
    "metarep.data.unbalanced": ("draw_unbalanced_tasks",),
    "metarep.data.batch": ("Batch", "BatchShape", "LabelledBatch", "LabelledViewBatch", "TaskBatch", "ViewBatch"),
    "metarep.data.batches": ("draw_batch",),
    "metarep.data.augment": ("Augment",),
    # Encoders: from images to features
    "metarep.encoders": (
        "ENCODERS",
        "Conv4",
        "EfficientNetLite",
        "Encoder",
        "Preprocess",
        "ResNet12",
        "ViT",
        "build_encoder",
        "keep_feature_means",
        "keep_feature_spread",
        "keep_view_spread",
        "space_of",
    ),
    # Learners: how a new task is solved
    "metarep.learners": (
        *("LEARNERS", "BDCSPN", "AugmentedLinear", "AveragedPrototypes", "GradientDescent", "LabelledIndex"),
        *("Learner", "Linear", "Neighbours", "Pairwise", "Prototypes", "SimpleShot", "State"),
    ),
    # Methods: how a representation is trained; and what a method of your own is made of
    "metarep.methods": (
        *("METHODS", "ANIL", "BYOL", "MAML", "Baseline", "Method", "MoCo", "ProtoNet", "Reptile"),
        *("Siamese", "SimCLR", "Step", "SupCon", "Triplet"),
    ),
    "metarep.learners.distances": ("task_cross_entropy",),
    "metarep.methods.losses": ("distillation_loss", "losses", "pair_loss", "triplet_loss"),
    "metarep.methods.contrastive": ("KeyQueue", "Projector", "info_nce", "negative_cosine", "nt_xent", "sup_con"),
    # Training, and what it leaves
    "metarep.weights.settings": ("TrainSettings",),
    "metarep.experiments.readings": ("CollapseWarning", "CollapsedError", "DivergedError"),
    "metarep.machine.ranks": ("joined",),
    "metarep.experiments.training": ("Outcome", "train"),
    "metarep.experiments.run_folder": ("RunFolder",),
    "metarep.experiments.card": ("run_card",),
    "metarep.experiments.saved_states": ("DamagedStateWarning",),
    "metarep.weights.checkpoint": ("Checkpoint",),
    "metarep.weights.record": ("RunRecord",),
    "metarep.weights.shipped": ("load_learner", "load_trained", "zoo_names"),
    "metarep.experiments.recipes": ("Recipe", "load_recipe", "recipe_names"),
    # Evaluation
    "metarep.experiments.compare": ("Compared", "Comparison", "compare"),
    "metarep.experiments.measurement.evaluation": ("evaluate",),
    "metarep.experiments.measurement.report": ("Report",),
    "metarep.experiments.measurement.reliability": ("Reliability",),
    "metarep.experiments.measurement.features": ("evaluate_features",),
    "metarep.experiments.measurement.retrieval": ("FarFeaturesWarning", "Retrieval", "measure_retrieval"),
    "metarep.data.task_file": ("load_tasks", "save_tasks"),
    # Your own classes: a model, its answers, how far to trust them, and its folder
    "metarep.model.classifier": ("FewShotClassifier",),
    "metarep.model.model": ("Model",),
    "metarep.model.folder": ("ModelFolder",),
    "metarep.model.card": ("model_card",),
    "metarep.model.repeats": ("RepeatWarning",),
    "metarep.model.gallery": ("Gallery",),
    "metarep.model.answers": ("Answer", "Neighbour"),
    "metarep.model.trust.trust": ("ClassTrust", "HeldOut", "Trust"),
    "metarep.model.trust.suspects": ("Suspect",),
    "metarep.model.labelled": ("Judged", "Verdict", "judge"),
    "metarep.model.suggestions": ("ClassNeed", "Suggestion", "class_needs", "suggest"),
    "metarep.model.multi_label.model": ("MultiLabelModel",),
    "metarep.model.multi_label.folder": ("MultiLabelFolder",),
    "metarep.model.tuning.tune": ("tune_model",),
    "metarep.model.tuning.unlabelled": ("adapt_model",),
    "metarep.weights.named": ("load_representation",),
    "metarep.weights.representation": ("Representation",),
    "metarep.model.export": ("export_onnx", "export_torch"),
    "metarep.app.api": ("create_app",),
    # The Hugging Face Hub: models and runs that are handed on
    "metarep.weights.hub.push": ("Pushed", "push"),
    "metarep.weights.hub.fetch": ("Fetched", "HubWarning", "pull"),
    # Search: vectors by id, and folders of images
    "metarep.index": ("INDEXES", "ExactIndex", "FaissIndex", "Index", "PgvectorIndex", "QdrantIndex", "build_index"),
    "metarep.index.index": ("SpaceError",),
    "metarep.search.image_index": ("Hit", "ImageIndex"),
    # Errors and warnings
    "metarep.errors": ("Advice", "DataError", "LeakageError", "MetarepError", "NotHereError", "TooLargeError"),
    "metarep.data.class_names": ("BadNameError", "LookAlikeWarning"),
    "metarep.data.datasets.options": ("LeftOutWarning",),
    "metarep.data.reading.folder_tree": ("FolderWarning",),
    "metarep.data.datasets.folder": ("DuplicateImagesWarning",),
    "metarep.learners.logistic": ("NotSolvedWarning",),
    "metarep.weights.card": ("CardWarning",),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
_OLD = {"load": "metarep.weights.shipped", "load_data": "metarep.data.datasets"}  # to be removed in the next version
__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll] - the names below TYPE_CHECKING are the same


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name in _OLD:
        return getattr(import_module(_OLD[name]), name)
    if name not in _HOME:
        raise AttributeError(f"module 'metarep' has no attribute {name!r}")
    module = import_module(_HOME[name])
    return globals().setdefault(name, getattr(module, name, module))  # losses is a module


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
