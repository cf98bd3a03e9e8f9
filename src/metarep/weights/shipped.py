"""The small trained encoders that ship with the library, each with its row in ``results/``."""

from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import deprecated

from metarep.errors import MetarepError, unknown
from metarep.learners import Learner
from metarep.weights.checkpoint import Checkpoint, load_checkpoint


def zoo_names() -> list[str]:
    """The names of the trained encoders that ship, which :func:`load_learner` opens."""
    return sorted(
        entry.name.removesuffix(".safetensors")
        for entry in files("metarep.weights").iterdir()
        if entry.name.endswith(".safetensors")
    )


@cache
def general_mean(name: str) -> Tensor | None:
    """The mean ``spread`` feature of photographs in general, as an encoder sees them.

    ``spread`` is that of :func:`metarep.model.trust.familiarity.spread`.

    Measured by ``benchmarks/one_shot.py`` on the training classes of CIFAR-FS; None of an encoder that was not.
    """
    with as_file(files("metarep.weights") / "photographs.npz") as path, np.load(path) as means:
        return torch.from_numpy(means[name].astype(np.float32)) if name in means else None


def load_learner(name: str | Path, device: torch.device | str = "cpu") -> Learner:
    """A trained learner, ready for ``embed`` and for new tasks.

    Args:
        name: one that ships (``omniglot-protonet``), a run folder, or a ``.safetensors`` file of ours.
        device: where to put it.

    Raises:
        MetarepError: there is no such model, or its file is damaged.

    >>> load_learner("omniglot-protonet").embed(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape
    torch.Size([2, 64])
    """
    return load_trained(name, device).learner


@deprecated("metarep.load is now called metarep.load_learner; the old name goes with the next version")
def load(name: str | Path, device: torch.device | str = "cpu") -> Learner:
    """The old name of :func:`load_learner`."""
    return load_learner(name, device)


def load_trained(name: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """The checkpoint of a trained learner: the learner with its method, settings, and the classes it has seen.

    Takes the same names as :func:`load_learner`.
    """
    if str(name) in zoo_names():
        with as_file(files("metarep.weights") / f"{name}.safetensors") as path:
            return load_checkpoint(path, device)
    if not Path(name).exists():
        raise unknown("model or run folder", str(name), zoo_names())
    return open_run(Path(name), device)


def open_run(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """The trained model of a run folder, or of a ``.safetensors`` file.

    Raises:
        MetarepError: nothing was trained there yet.
    """
    path = Path(path)
    model = path / "model.safetensors" if path.is_dir() else path
    if path.is_dir() and not model.exists():
        raise MetarepError(f"{path} holds no trained model yet (no model.safetensors); train it first, or resume it")
    return load_checkpoint(model, device)
