"""Sampling of images in bytes by ``sampling.c``, on torch's number of threads; three times as fast as torch."""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from metarep.fast.c import call, in_parts, library

WIDEST = 1024  # BLOCK of sampling.c
WORTH_A_THREAD = 2**18  # numbers; for less, starting a thread costs more than it saves


def sample_compiled(x: Num[Tensor, "n c h w"], matrix: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c h w"] | None:
    """As :func:`metarep.data.augment.sampling.sample`; None if the C code does not support the images."""
    height, width = x.shape[2:]
    fits = x.dtype == torch.uint8 and x.device.type == "cpu" and min(height, width) >= 2 and width <= WIDEST
    if not fits or library() is None:
        return None
    x, matrix, views = x.contiguous(), matrix.to(torch.float32).contiguous(), torch.empty(x.shape)

    def part(start: int, stop: int) -> None:
        call("metarep_sample", (x[start:stop], matrix[start:stop], views[start:stop]), stop - start, *x.shape[1:])

    in_parts(part, len(x), x.numel() // WORTH_A_THREAD)
    return views
