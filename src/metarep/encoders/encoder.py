"""Encoder: a body of layers with the Preprocess that belongs to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from metarep.device import Precision
from metarep.encoders.block import plain
from metarep.encoders.output import Picked, key_of
from metarep.encoders.preprocess import Preprocess
from metarep.errors import MetarepError

# Pixels that go through the body at a time where nothing is trained: 8 images of 160 px. More are no faster, since maps
# no longer fit the cache of a core, and take memory in proportion.
AT_ONCE = 8 * 160 * 160


class Encoder(nn.Module):
    """From raw images to a representation, one row an image, always float32 (float64 for images in float64).

    Preprocessing, memory format and precision are inside, so training, evaluation and serving cannot differ in them.
    With ``precision="bfloat16"`` the body runs in mixed precision; losses and distances never see it.

    Args:
        body: any module from normalised images ``(b, c, h, w)`` to features ``(b, dim)``, a user's own too. It may also
            give ``(b, dim, 1, 1)``, or a dictionary or tuple in which :func:`metarep.encoders.output.key_of` finds
            them. Its weights may be in any floating type; images come in the same.
        preprocess: what the body expects.
        arch: name and settings of the body where it is one of ours, so that a checkpoint can rebuild it.

    Raises:
        MetarepError: the body does not take such images, or does not give one row of features an image.

    >>> mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> encoder = Encoder(mean, Preprocess((8, 8), 3, (0.5,) * 3, (0.5,) * 3))
    >>> encoder.dim, encoder(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)).round().tolist()
    (3, [[1.0, 1.0, 1.0]])
    """

    def __init__(self, body: nn.Module, preprocess: Preprocess, arch: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.arch = arch or {"name": type(body).__name__}
        self.precision: Precision = "float32"
        self.body, self.dim = self._take(body)

    def forward(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        if not torch.compiler.is_compiling() and len(x) > self.at_once and self._parts(x):
            return torch.cat([self.features(self.preprocess(part)) for part in x.split(self.at_once)])
        return self.features(self.preprocess(x))

    @property
    def at_once(self) -> int:
        """Images that a processor is best given at a time where nothing is trained."""
        height, width = self.preprocess.size
        return max(1, AT_ONCE // (height * width))

    def _parts(self, x: Tensor) -> bool:
        """Whether ``x`` may go through in parts: it is only looked at, on a processor, and no image sees another."""
        if self.body.training or torch.is_grad_enabled() or not plain(x):
            return False
        norms = (layer for layer in self.body.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))
        return all(norm.running_mean is not None for norm in norms)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        """Features of images that are normalised already."""
        given = x.dtype
        x = x.to(self.kind or given).contiguous(memory_format=self._format())
        if self.precision == "bfloat16":
            with torch.autocast(x.device.type, torch.bfloat16):
                return self.body(x).float()
        return self.body(x).to(given)

    @property
    def kind(self) -> torch.dtype | None:
        """The type of the body's numbers, which its images must have; None for a body that learns none."""
        return next((parameter.dtype for parameter in self.body.parameters() if parameter.is_floating_point()), None)

    def _format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def _take(self, body: nn.Module) -> tuple[nn.Module, int]:
        """The body, and the number of its features, by running one blank image.

        Channels-last is the faster format; a body that takes its maps apart with ``view`` cannot be run in it.
        """
        modes = [(module, module.training) for module in body.modules()]
        body.eval()
        try:
            answer = self._run_blank(body)
        finally:
            for module, training in modes:
                module.training = training
        key = key_of(answer, self.arch["name"])
        if key is None and answer.ndim == 2:
            return body, answer.shape[1]
        picked = Picked(body, key)
        picked.training = body.training
        return picked, (answer if key is None else answer[key]).flatten(1).shape[1]

    def _run_blank(self, body: nn.Module) -> Any:  # noqa: ANN401 - whatever it returns
        some = next((each for each in body.parameters() if each.is_floating_point()), torch.zeros(1))
        blank = torch.zeros(1, self.preprocess.channels, *self.preprocess.size, dtype=some.dtype, device=some.device)
        reason = ""
        for channels_last in (True, False):
            self.channels_last = channels_last
            try:
                body.to(memory_format=self._format())  # pyright: ignore[reportCallIssue]
                with torch.no_grad():
                    return body(blank.contiguous(memory_format=self._format()))
            except MetarepError:
                raise
            except Exception as error:  # bodies of others raise anything
                reason = " ".join(str(error).split()) or type(error).__name__
        height, width = self.preprocess.size
        raise MetarepError(f"images of {height} x {width} px do not fit {self.arch['name']}: {reason}")


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
