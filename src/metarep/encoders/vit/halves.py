"""A vision transformer in two parts: its first blocks, which are run once, and its last ones, which are trained."""

from jaxtyping import Float
from torch import Tensor, nn

from metarep.encoders.vit.features import FeatureKind, features_of
from metarep.encoders.vit.positions import rotation
from metarep.encoders.vit.vit import ViT


class FirstBlocks(nn.Module):
    """From normalised images to the tokens that go into the block number ``cut``.

    Args:
        vit: the whole network, whose weights are shared.
        cut: number of blocks.
    """

    def __init__(self, vit: ViT, cut: int) -> None:
        super().__init__()
        self.vit, self.cut = vit, cut

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n width"]:
        """All tokens of the images."""
        x, turn, _ = self.vit.embedded(x)
        for block in self.vit.blocks[: self.cut]:  # pyright: ignore[reportGeneralTypeIssues]
            x = block(x, turn)
        return x


class LastBlocks(nn.Module):
    """From the tokens that go into the block number ``cut`` to features. Its weights have the names of the network.

    Args:
        vit: the whole network, whose weights are shared.
        cut: number of the first block.
        size: height and width of the images in pixels.

    >>> import torch
    >>> vit, image = ViT(3, patch=4, grid=2), torch.rand(1, 3, 8, 8)
    >>> LastBlocks(vit, 3, (8, 8))(FirstBlocks(vit, 3)(image)).equal(vit(image))
    True
    """

    def __init__(self, vit: ViT, cut: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({str(cut + i): block for i, block in enumerate(vit.blocks[cut:])})
        self.norm, self.pool, self.project = vit.norm, vit.pool, vit.project
        self.kind: FeatureKind = vit.kind
        self.grid, self.rotates = (size[0] // vit.side, size[1] // vit.side), vit.positions is None
        self.per_head = vit.per_head

    def forward(self, x: Float[Tensor, "b n width"]) -> Float[Tensor, "b dim"]:
        """Features of images, from their tokens."""
        turn = rotation(self.grid, self.per_head, x) if self.rotates else None
        for block in self.blocks.values():
            x = block(x, turn)
        return features_of(self.norm(x), self.grid[0] * self.grid[1], self.kind, self.pool, self.project)
