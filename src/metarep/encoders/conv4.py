"""Conv4: the field's small backbone, four convolution blocks."""

from torch import Tensor, nn

from metarep.encoders.first_block import Block, first_block, fits
from metarep.encoders.initialise import initialise
from metarep.errors import MetarepError
from metarep.normalisation import ExplicitNorm, follow


class Conv4(nn.Sequential):
    """Four blocks of 3x3 convolution, batch normalisation, ReLU and 2x2 max-pooling, then flattened.

    At 28 px with 64 channels the representation has 64 numbers, at 84 px 1,600. Pooling is put before the ReLU: both
    are monotone, so the values are the same, and the ReLU then touches a quarter of them.

    Vinyals et al., Matching Networks for One Shot Learning, 2016; Snell et al., Prototypical Networks, 2017.

    Args:
        channels: of the images.
        width: channels of every block; 64 in most papers, 32 in MAML's miniImageNet.

    >>> import torch
    >>> Conv4(1)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64])
    """

    def __init__(self, channels: int, *, width: int = 64) -> None:
        if width < 1:
            raise MetarepError(f"width must be at least 1, not {width}")
        blocks = []
        for _ in range(4):
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            blocks.append(ConvBlock(convolution, nn.BatchNorm2d(width), nn.MaxPool2d(2), nn.ReLU()))
            channels = width
        super().__init__(*blocks, nn.Flatten())
        initialise(self)


class ConvBlock(nn.Sequential):
    """Convolution, norm, pooling, ReLU: one after another, or in one go where that is possible and faster.

    Trap: in one go the layers are not called, so hooks on them do not run in a first block on a processor.
    """

    def forward(self, x: Tensor) -> Tensor:
        norm = self[1]
        if fits(x) and isinstance(norm, ExplicitNorm) and not norm.differentiable:
            block = self._at_once(x, norm, norm.given, norm.rows)
            if norm.recording:
                norm.seen = block.mean, block.variance
            return block.z
        if fits(x) and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            if not norm.training:
                return self._at_once(x, norm, (norm.get_buffer("running_mean"), norm.get_buffer("running_var"))).z
            block = self._at_once(x, norm)
            follow(norm, block.mean, block.variance, x.numel() // x.shape[1])
            return block.z
        return super().forward(x)

    def _at_once(
        self,
        x: Tensor,
        norm: nn.BatchNorm2d | ExplicitNorm,
        given: tuple[Tensor, Tensor] | None = None,
        rows: int | None = None,
    ) -> Block:
        filters = self[0].weight
        assert isinstance(filters, Tensor)
        assert norm.weight is not None
        assert norm.bias is not None
        return first_block(x, filters, norm.weight, norm.bias, norm.eps, rows, given)
