"""Conv4: the field's small backbone, four convolution blocks."""

from torch import nn

from metarep.encoders.initialise import initialise
from metarep.errors import MetarepError


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
            blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.MaxPool2d(2), nn.ReLU()))
            channels = width
        super().__init__(*blocks, nn.Flatten())
        initialise(self)
