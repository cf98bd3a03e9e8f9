"""Cut-out: set a square of every image to the mean of the image (DeVries & Taylor 2017, whose square is black)."""

import torch
from jaxtyping import Float
from torch import Tensor


def cut_out(x: Float[Tensor, "b c h w"], centre: Float[Tensor, "b 2"], side: float) -> None:
    """Set a square of each image to its mean colour, in place. The square is cut off at the edges of the image.

    Args:
        x: the images.
        centre: the centre of each square, down and across, as shares of the sides of the image.
        side: the side of the square, as a share of the sides of the image.
    """
    height, width = x.shape[2:]
    centre = centre.to(x.device)
    rows = (torch.arange(height, device=x.device) + 0.5) / height
    columns = (torch.arange(width, device=x.device) + 0.5) / width
    tall = (rows - centre[:, :1]).abs() < side / 2
    wide = (columns - centre[:, 1:]).abs() < side / 2
    hole = (tall.unsqueeze(2) & wide.unsqueeze(1)).unsqueeze(1)
    torch.where(hole, x.mean((2, 3), keepdim=True), x, out=x)
