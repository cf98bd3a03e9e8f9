"""Trained models that ship with the library, and the loading of trained learners by name."""

from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import deprecated

from metarep.errors import Advice, Call, MetarepError, Slot, unknown
from metarep.learners import Learner
from metarep.weights.checkpoint import Checkpoint, load_checkpoint
from metarep.weights.hub.contents import ENCODER, GALLERY, LABELS, SETTINGS, WEIGHTS
from metarep.weights.hub.fetch import fetch
from metarep.weights.hub.names import is_hub_name


def zoo_names() -> list[str]:
    """The names of the trained models that ship with the library, which :func:`load_learner` loads.

    >>> "omniglot-protonet" in zoo_names()
    True
    """
    return sorted(
        entry.name.removesuffix(".safetensors")
        for entry in files("metarep.weights").iterdir()
        if entry.name.endswith(".safetensors")
    )


@cache
def general_mean(name: str) -> Tensor | None:
    """The mean point of photographs in general; see :class:`metarep.model.trust.points.PointSpace`.

    ``benchmarks/one_shot.py`` measured it on the training classes of CIFAR-FS.

    Args:
        name: name of an encoder.

    Returns:
        The mean, of shape ``(points,)`` in float32; None for an encoder that was not measured.
    """
    with as_file(files("metarep.weights") / "photographs.npz") as path, np.load(path) as means:
        return torch.from_numpy(means[name].astype(np.float32)) if name in means else None


def kind_of(folder: Path) -> str:
    """The kind of a folder that has an encoder and is not a run: ``a model folder``, ``an index``, or empty text."""
    if not (folder / ENCODER).is_file() or (folder / WEIGHTS).is_file():
        return ""
    return "an index" if (folder / "index.safetensors").is_file() else "a model folder"


def load_learner(name: str | Path, device: torch.device | str = "cpu") -> Learner:
    """Load a trained learner, to embed images and to solve new tasks.

    Args:
        name: a model that ships (``omniglot-protonet``), a run folder, a ``.safetensors`` file of this library, or a
            run on the Hub (``hf:USER/NAME``, extra ``hub``; see :func:`metarep.weights.hub.fetch.fetch`).
        device: where to put the weights.

    Raises:
        MetarepError: there is no such model, or its file is damaged.

    >>> learner = load_learner("omniglot-protonet")
    >>> learner.called, tuple(learner.embed(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape)
    ('prototypes', (2, 64))
    """
    return load_trained(name, device).learner


@deprecated("metarep.load is now called metarep.load_learner; the old name goes with the next version")
def load(name: str | Path, device: torch.device | str = "cpu") -> Learner:
    """The old name of :func:`load_learner`."""
    return load_learner(name, device)


def load_trained(name: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load the checkpoint of a trained learner: its weights, its settings, and the classes that it has seen.

    Args:
        name, device: see :func:`load_learner`.

    Raises:
        MetarepError: there is no such model, or its file is damaged.

    >>> load_trained("omniglot-protonet").record.method
    'protonet'
    """
    if str(name) in zoo_names():
        with as_file(files("metarep.weights") / f"{name}.safetensors") as path:
            return load_checkpoint(path, device)
    if is_hub_name(name):
        fetched = fetch(name)
        return open_run(fetched.folder, device, called=fetched.name)
    if not Path(name).exists():
        raise unknown(
            "model or run folder", str(name), [*zoo_names(), "efficientnet-lite0", "timm:NAME", "hf:USER/NAME"]
        )
    return open_run(Path(name), device)


def open_run(path: Path, device: torch.device | str = "cpu", *, called: str = "") -> Checkpoint:
    """Load the checkpoint of a run folder, or of a ``.safetensors`` file.

    Args:
        path: the folder or the file.
        device: where to put the weights.
        called: its name for messages, if that is not its path.

    Raises:
        MetarepError: the folder holds no trained model, or the file is damaged.
    """
    path = Path(path)
    model = path / WEIGHTS if path.is_dir() else path
    if path.is_dir() and not model.exists():
        if kind := kind_of(path):
            labels = (path / LABELS).is_file()
            test = Call("judge", "predict", called or path, Slot("LIST" if labels else "FOLDER"), labelled=True)
            measurable = labels or (path / GALLERY).is_file()
            measure = [Advice("measure it with {test}", test=test)] if measurable else []
            train = Advice("train from its encoder with {encoder}", encoder=called or path / ENCODER)
            raise MetarepError(f"{called or path} is {kind} and not a run folder", advice=[*measure, train])
        if not (path / SETTINGS).is_file():
            test = Call("judge", "predict", Slot("MODEL"), called or path, labelled=True)
            photographs = Advice("if it holds photographs, measure a model on them with {test}", test=test)
            run = Advice("a run with {data}", data=f"folder:{called or path}")
            raise MetarepError(f"{called or path} is not a run folder", advice=[photographs, run])
        raise MetarepError(
            f"{called or path} holds no trained model yet (no model.safetensors); train it first, or resume it"
        )
    return load_checkpoint(model, device)
