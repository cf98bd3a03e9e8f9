"""Encoder: a body of layers with the Preprocess that belongs to it."""

from typing import Any, Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from metarep.encoders.block import plain
from metarep.encoders.preprocess import Preprocess
from metarep.errors import MetarepError

# Pixels that go through the body at a time where nothing is trained: 8 images of 160 px. More are no faster, since maps
# no longer fit the cache of a core, and take memory in proportion.
AT_ONCE = 8 * 160 * 160

Precision = Literal["float32", "bfloat16"]


class Encoder(nn.Module):
    """From raw images to a representation, one row an image, always float32.

    Preprocessing, memory format and precision are inside, so training, evaluation and serving cannot differ in them.
    With ``precision="bfloat16"`` the body runs in mixed precision; losses and distances never see it.

    Args:
        body: any module from normalised images ``(b, c, h, w)`` to features ``(b, dim)``, a user's own too.
        preprocess: what the body expects.
        arch: name and settings of the body where it is one of ours, so that a checkpoint can rebuild it.

    Raises:
        MetarepError: the body does not give one row of features an image.
    """

    def __init__(self, body: nn.Module, preprocess: Preprocess, arch: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.body = body.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.preprocess = preprocess
        self.arch = arch or {"name": type(body).__name__}
        self.precision: Precision = "float32"
        self.dim = self._measure()

    def forward(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        if len(x) > self.at_once and self._parts(x):
            return torch.cat([self._features(part) for part in x.split(self.at_once)])
        return self._features(x)

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

    def _features(self, x: Tensor) -> Tensor:
        x = self.preprocess(x).contiguous(memory_format=torch.channels_last)
        if self.precision == "bfloat16":
            with torch.autocast(x.device.type, torch.bfloat16):
                return self.body(x).float()
        return self.body(x)

    def _measure(self) -> int:
        """The number of features, by running one blank image."""
        training = self.body.training
        parameter = next(self.body.parameters(), torch.zeros(1))
        blank = torch.zeros(
            1, self.preprocess.channels, *self.preprocess.size, dtype=parameter.dtype, device=parameter.device
        )
        try:
            with torch.no_grad():
                features = self.body.eval()(blank)
        except RuntimeError as error:
            height, width = self.preprocess.size
            raise MetarepError(f"images of {height} x {width} px do not fit {self.arch['name']}: {error}") from error
        finally:
            self.body.train(training)
        if not isinstance(features, torch.Tensor):
            kind = type(features).__name__
            raise MetarepError(f"{self.arch['name']} gives a {kind} for one image; an encoder gives a tensor (1, dim)")
        if features.ndim != 2:
            raise MetarepError(
                f"{self.arch['name']} gives {tuple(features.shape)} for one image; an encoder gives (1, dim)"
            )
        return features.shape[1]
