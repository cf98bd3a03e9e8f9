"""Pretrained encoders of a training: anything that load_representation opens, with its own preprocessing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarep.encoders import ENCODERS, Encoder
from metarep.encoders.onnx import OnnxBody
from metarep.encoders.vit import SIZES
from metarep.errors import Advice, MetarepError, unknown
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.hub.names import is_hub_name, short_name
from metarep.weights.named import LITE, load_representation
from metarep.weights.shipped import zoo_names


def is_pretrained(about: Mapping[str, Any]) -> bool:
    """Whether the encoder of a job is a trained one, and not an architecture of this library with random weights.

    >>> is_pretrained({"name": "conv4"}), is_pretrained({"name": "efficientnet-lite0"})
    (False, True)
    """
    return about["name"] not in (*ENCODERS, *SIZES)


@dataclass(frozen=True)
class Pretrained:
    """A pretrained encoder that a training starts from.

    Args:
        encoder: the encoder with its weights and its preprocessing.
        name: its name, as a result row has it.
        digest: of its weights; a run that is resumed must start from the same ones.
        run: the run that trained it; None for a third-party encoder.
        layout: what was recognised in a file of a published network; empty for others.
    """

    encoder: Encoder
    name: str
    digest: str
    run: Checkpoint | None
    layout: str = ""


def open_pretrained(about: Mapping[str, Any], size: tuple[int, int], freeze: str) -> Pretrained:
    """Open the pretrained encoder of a job, for images of a size.

    A run, or a model that ships, keeps its own size, to which images are resized.

    Args:
        about: ``name``, as :func:`metarep.weights.named.load_representation` takes it, and perhaps ``arch``.
        size: height and width of the images in pixels.
        freeze: what of the encoder is not trained; see :func:`metarep.encoders.freezing.freeze`.

    Raises:
        MetarepError: there is no such encoder, or it cannot be trained.
    """
    name, arch = str(about["name"]), about.get("arch")
    if other := sorted(about.keys() - {"name", "arch"}):
        raise MetarepError(f"{name} is a trained encoder, so its {other[0]} cannot be set; leave it out")
    if name.endswith(".onnx") and freeze != "backbone":
        raise _stays_frozen(name)
    ours = (*LITE, *zoo_names(), "auto")
    if (
        name not in ours
        and not name.startswith("timm:")
        and not is_hub_name(name)
        and not Path(name).exists()
        and "." not in name
    ):
        others = ("timm:NAME", "hf:USER/NAME", "FILE.pth", "FILE.onnx", "a run folder")
        raise unknown("encoder", name, [*ENCODERS, *SIZES, *ours, *others])
    representation = load_representation(name, arch=arch, size=size)
    if isinstance(representation.encoder.body, OnnxBody) and freeze != "backbone":  # of a run or a model folder
        raise _stays_frozen(name)
    encoder, run = representation.encoder, representation.checkpoint
    return Pretrained(encoder, short_name(name), representation.digest, run, representation.layout)


def _stays_frozen(name: str) -> MetarepError:
    return MetarepError(
        f"{name} is an ONNX graph, which stays frozen: it can be used and not trained",
        advice=(
            Advice("take {freeze} and a method with a head of its own (baseline, anil)", freeze="backbone"),
            "take a file of weights of the same network",
        ),
    )
