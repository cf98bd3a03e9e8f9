"""Frozen encoders as checkpoints, so that they are measured as runs are: pretrained encoders by name."""

from pathlib import Path

import torch

from metarep.learners import Prototypes
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.hub.names import is_hub_name
from metarep.weights.named import is_trained_name, load_representation
from metarep.weights.record import RunRecord
from metarep.weights.representation import Representation
from metarep.weights.shipped import load_trained, zoo_names

FROZEN = "frozen"
PRETRAINED = "pretrained"


def load_to_measure(
    name: str | Path, device: torch.device | str = "cpu", *, size: int | None = None, arch: str | None = None
) -> Checkpoint:
    """Load what is to be measured: a trained run, or a frozen encoder with the cosine with class means.

    No training of this library fits a frozen encoder, so it has seen no class that is known here. What its own training
    has seen is not checked: ImageNet, for example, holds many of the classes of CIFAR-100 and Caltech-101.

    Args:
        name: a run, as in :func:`metarep.load_learner`; or an encoder, as in :func:`metarep.load_representation`:
            ``efficientnet-lite0`` to ``2``, ``timm:NAME``, a file of ONNX or of weights, ``hf:USER/NAME``.
        device: where to put the weights.
        size: side of the images of a frozen encoder in pixels; None for its own.
        arch: the architecture of a file of weights, and which features it gives, as for
            :func:`metarep.load_representation`.

    Raises:
        MetarepError: there is no such run or encoder, or a package that it needs is not installed.

    >>> load_to_measure("omniglot-protonet").record.method
    'protonet'
    """
    text = str(name)
    if arch:
        return _frozen(load_representation(text, arch=arch, size=size), device)
    may_be_frozen = is_hub_name(text) or is_trained_name(text) or Path(text).is_file()
    if not may_be_frozen or text in zoo_names() or Path(text).is_dir():
        return load_trained(name, device)
    representation = load_representation(text, size=size)
    if representation.checkpoint is None:
        return _frozen(representation, device)
    return load_trained(representation.name if is_hub_name(text) else name, device)


def _frozen(representation: Representation, device: torch.device | str) -> Checkpoint:
    learner = Prototypes(representation.encoder, "cosine").to(device).eval()
    record = RunRecord(FROZEN, encoder=representation.encoder.arch, labels=PRETRAINED, name=representation.name)
    return Checkpoint(learner, record, frozenset(), frozenset())
