"""Sampling of bytes by ``sampling.c``, on as many threads as torch has; in a third of the time that torch takes."""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from metarep.fast.c import call, in_parts, library

WIDEST = 1024  # BLOCK of sampling.c
WORTH_A_THREAD = 2**18  # numbers; less takes no longer than handing them over


def sample_compiled(x: Num[Tensor, "n c h w"], matrix: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c h w"] | None:
    """The views, as :func:`metarep.data.augment.sampling.sample` gives them; None for what the C code cannot take."""
    height, width = x.shape[2:]
    fits = x.dtype == torch.uint8 and x.device.type == "cpu" and min(height, width) >= 2 and width <= WIDEST
    if not fits or library() is None:
        return None
    x, matrix, views = x.contiguous(), matrix.to(torch.float32).contiguous(), torch.empty(x.shape)

    def part(start: int, stop: int) -> None:
        call("metarep_sample", (x[start:stop], matrix[start:stop], views[start:stop]), stop - start, *x.shape[1:])

    in_parts(part, len(x), x.numel() // WORTH_A_THREAD)
    return views
