"""Memory formats of feature maps: channels-last is the faster one, and some networks do not work in it."""

import torch
from torch import nn

FEWEST = 16  # input channels from which oneDNN computes every convolution in channels-last


def layouts(body: nn.Module) -> tuple[torch.memory_format, ...]:
    """The memory formats to try for a network, the faster one first.

    Trap: on a CPU, oneDNN computes the weight gradient of a strided 1 x 1 convolution of 2 to 15 channels in
    channels-last with a buffer that is too short. The process then ends with a segmentation fault, or other values are
    overwritten. RepVGG, MobileOne and FastViT begin with such a layer.

    >>> layouts(nn.Conv2d(3, 48, 1, stride=2)), layouts(nn.Conv2d(64, 128, 1, stride=2))
    ((torch.contiguous_format,), (torch.channels_last, torch.contiguous_format))
    """
    if any(_ends_the_process(layer) for layer in body.modules()):
        return (torch.contiguous_format,)
    return torch.channels_last, torch.contiguous_format


def _ends_the_process(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d) or 1 in (layer.in_channels, max(layer.stride)):
        return False
    return layer.kernel_size == (1, 1) and layer.in_channels < FEWEST
