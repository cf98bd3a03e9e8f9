"""Encoder: a network (the body) together with the preprocessing of its images."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.func import functional_call

from metarep.encoders.eager import eager_on_cpu
from metarep.encoders.layout import layouts
from metarep.encoders.modes import evaluating
from metarep.encoders.output import Picked, key_of
from metarep.encoders.preprocess import Preprocess
from metarep.errors import MetarepError
from metarep.machine.device import Precision

# Pixels that go through the body at a time on a CPU, where nothing is trained: 8 images of 160 px. With more, feature
# maps no longer fit the cache of a core, so it is not faster, and it needs more memory.
AT_ONCE = 8 * 160 * 160
LARGE = 512 * 512  # pixels of an image from which the number of features is found without computing them


@runtime_checkable
class Sized(Protocol):
    """A body that knows the number of its features."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def dim_at(self, size: tuple[int, int], /) -> int:
        """The number of features of an image of this size."""
        ...


class Encoder(nn.Module):
    """Encodes raw images as feature vectors: one row of ``dim`` features an image, in float32.

    Images in float64 give features in float64. Preprocessing, memory format and precision are part of the encoder, so
    training, evaluation and serving cannot differ in them. With ``precision="bfloat16"`` the body runs in mixed
    precision, and the features are converted back to float32 for losses and distances.

    Args:
        body: any module from normalised images ``(b, c, h, w)`` to features ``(b, dim)``. It may also return
            ``(b, dim, 1, 1)``, or a dictionary or tuple that holds the features
            (:func:`metarep.encoders.output.key_of`). Its weights may have any floating dtype.
        preprocess: how raw images are resized, converted and normalised for the body.
        arch: name and settings of the body if it is from this library, so that a checkpoint can rebuild it.

    Attributes:
        feature_means: the mean features of its training images, which some learners subtract; None if they are not
            known. A training sets them at its end, and :func:`metarep.encoders.keep_feature_means` from given images.
        feature_spread: how its features differ within training classes, which some learners even out; None if that is
            not known. See :func:`metarep.encoders.keep_feature_spread`.
        layout: the memory format of feature maps, in which the body computes fastest.
        classifier: the classifier that it was pretrained with, as :func:`metarep.encoders.classifier.pack_classifier`
            makes it; None if that is not known. A training drops it, because its features will change.

    Raises:
        MetarepError: the body does not take images of this size, or does not return one row of features an image.

    >>> mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> encoder = Encoder(mean, Preprocess((8, 8), 3, (0.5,) * 3, (0.5,) * 3))
    >>> encoder.dim, encoder(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)).round().tolist()
    (3, [[1.0, 1.0, 1.0]])
    """

    body: nn.Module
    dim: int
    arch: dict[str, Any]
    feature_means: Tensor | None
    feature_spread: Tensor | None
    classifier: Tensor | None
    layout: torch.memory_format
    still: tuple[str, ...] = ()  # modules of the body that stay in evaluation mode while it is trained

    def __init__(self, body: nn.Module, preprocess: Preprocess, arch: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.arch = arch or {"name": type(body).__name__}
        self.precision: Precision = "float32"
        self.body, self.dim = self._take(body)
        self.register_buffer("feature_means", None, persistent=False)  # they follow from the weights and are none
        self.register_buffer("feature_spread", None, persistent=False)
        self.register_buffer("classifier", None, persistent=False)

    def train(self, mode: bool = True) -> "Encoder":
        """Set training or evaluation mode; what is frozen (:mod:`metarep.encoders.freezing`) stays in evaluation."""
        super().train(mode)
        for name in self.still:
            self.body.get_submodule(name).eval()
        return self

    def forward(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        """Features of raw images, which are uint8 in 0 to 255 or floating point in 0 to 1."""
        if not torch.compiler.is_compiling() and len(x) > self.at_once and self._parts(x):
            return torch.cat([self.features(self.preprocess(part)) for part in x.split(self.at_once)])
        return self.features(self.preprocess(x))

    @property
    def at_once(self) -> int:
        """The batch size, in images, at which a CPU encodes fastest where nothing is trained."""
        height, width = self.preprocess.size
        return max(1, AT_ONCE // (height * width))

    def _parts(self, x: Tensor) -> bool:
        """Whether the batch may be split: inference on a CPU, and no layer takes statistics of the batch."""
        if self.body.training or torch.is_grad_enabled() or not eager_on_cpu(x):
            return False
        norms = (layer for layer in self.body.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))
        return all(norm.running_mean is not None for norm in norms)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        """Features of images that are already preprocessed."""
        dtype = x.dtype
        x = x.to(self.kind or dtype).contiguous(memory_format=self.layout)
        if self.precision == "bfloat16":
            with torch.autocast(x.device.type, torch.bfloat16):
                return self.body(x).float()
        return self.body(x).to(dtype)

    @property
    def kind(self) -> torch.dtype | None:
        """The dtype of the body's weights, to which images are converted; None for a body without weights."""
        return next((parameter.dtype for parameter in self.body.parameters() if parameter.is_floating_point()), None)

    def _take(self, body: nn.Module) -> tuple[nn.Module, int]:
        """The body, and its number of features, which is measured on one blank image.

        A body of this library on the device ``meta`` (shapes without values) states the number instead. To run it
        there, torch would import its compiler.
        """
        if isinstance(body, Sized) and all(parameter.is_meta for parameter in body.parameters()):
            self.layout = layouts(body)[0]
            return body, body.dim_at(self.preprocess.size)
        with evaluating(body):
            output = self._run_blank(body)
        key = key_of(output, self.arch["name"])
        if key is None and output.ndim == 2:
            return body, output.shape[1]
        picked = Picked(body, key)
        picked.training = body.training
        return picked, (output if key is None else output[key]).flatten(1).shape[1]

    def _run_blank(self, body: nn.Module) -> Any:  # noqa: ANN401 - whatever it returns
        """What the body returns for one blank image.

        The fastest memory format that it can be run in is kept. A body that reshapes its feature maps with ``view``
        cannot be run in channels-last.
        """
        weight = next((each for each in body.parameters() if each.is_floating_point()), torch.zeros(1))
        size = self.preprocess.size
        blank = torch.zeros(1, self.preprocess.channels, *size, dtype=weight.dtype, device=weight.device)
        reason = ""
        if size[0] * size[1] > LARGE:
            with suppress(Exception):  # a third-party body may not run on this device
                return self._run_large(body, blank.to("meta"))
        for self.layout in layouts(body):
            try:
                body.to(memory_format=self.layout)  # pyright: ignore[reportCallIssue]
                with torch.no_grad():
                    return body(blank.contiguous(memory_format=self.layout))
            except MetarepError:
                raise
            except Exception as error:  # a third-party body may raise anything
                reason = " ".join(str(error).split()) or type(error).__name__
        height, width = size
        raise MetarepError(f"images of {height} x {width} px do not fit {self.arch['name']}: {reason}")

    def _run_large(self, body: nn.Module, blank: Tensor) -> Any:  # noqa: ANN401 - whatever it returns
        """The output for a blank image on the device ``meta``, whose feature maps take no memory."""
        self.layout = layouts(body)[0]
        on_meta = {name: value.to("meta") for name, value in body.state_dict(keep_vars=True).items()}
        with torch.no_grad():
            output = functional_call(body, on_meta, (blank.contiguous(memory_format=self.layout),))
        body.to(memory_format=self.layout)  # pyright: ignore[reportCallIssue]
        return output


@contextmanager
def computing(network: nn.Module, precision: Precision) -> Iterator[None]:
    """Let every encoder of a network compute in ``precision`` for a while; afterwards each has its own again."""
    encoders = [layer for layer in network.modules() if isinstance(layer, Encoder)]
    before: list[tuple[Encoder, Precision]] = [(encoder, encoder.precision) for encoder in encoders]
    for encoder in encoders:
        encoder.precision = precision
    try:
        yield
    finally:
        for encoder, own in before:
            encoder.precision = own
