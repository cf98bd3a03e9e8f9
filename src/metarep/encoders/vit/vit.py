"""ViT: the vision transformer, in the forms that DINO, DINOv2, DINOv3, MAE, CLIP and SigLIP have published."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarep.encoders.vit.block import Activation, AttentionPool, Block, Rotation
from metarep.encoders.vit.features import FeatureKind, features_of
from metarep.encoders.vit.positions import Resampling, resampled, rotation
from metarep.errors import MetarepError, one_of

MOST, DEEPEST = 1 << 16, 256  # no setting of a published network is larger; a damaged file may ask for more


class ViT(nn.Module):
    """Vision transformer: an image becomes a sequence of patches, which attend to each other.

    Dosovitskiy et al., An Image is Worth 16x16 Words, 2021; Darcet et al., Vision Transformers Need Registers, 2024.
    Images may have any size that is a multiple of the patch: learned positions are resampled.

    Args:
        channels: channels of the images.
        width: features of a token.
        depth: number of blocks.
        heads: attention heads, which divide ``width``.
        patch: side of a patch, in pixels.
        grid: side of the grid of learned positions, in patches, or its rows and columns.
        features: ``class`` for the class token, ``mean`` for the mean of the patches, ``both`` for the two side by side
            (twice as many features), or ``attention`` for a pooling by attention, as in SigLIP.
        registers: tokens that carry no patch and are not part of the features.
        class_token: whether there is a class token.
        positions: ``learned``; or ``rope``, which rotates queries and keys and learns nothing.
        resampling: how learned positions are resampled; see :func:`metarep.encoders.vit.positions.resampled`.
        hidden: features of the hidden layer of each block; 0 for four times ``width``.
        activation: ``gelu``, ``gelu-tanh``, ``quick-gelu`` or ``swiglu``.
        layer_scale: first value of the factors of each block; 0 for none.
        norm_first: a norm before the first block, as in CLIP.
        patch_bias: whether the patches have a bias.
        project: features of a linear projection at the end; 0 for none.
        eps: of the norms.
        layout: name of the published layout that the weights were read from; it changes nothing.

    Raises:
        MetarepError: a setting is out of range, or two settings contradict each other.

    >>> vit = ViT(3, width=16, depth=2, heads=2, patch=4, grid=8).eval()
    >>> image = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))  # of 6 x 8 patches
    >>> shifted = image.roll(4, dims=-1)  # the same patches in another order
    >>> _ = torch.nn.init.zeros_(vit.positions)  # without positions, their order has no effect
    >>> vit(image).allclose(vit(shifted), atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        patch: int = 4,
        grid: int | Sequence[int] = 7,
        features: FeatureKind = "class",
        registers: int = 0,
        class_token: bool = True,
        positions: Literal["learned", "rope"] = "learned",
        resampling: Resampling = "antialias",
        hidden: int = 0,
        activation: Activation = "gelu",
        layer_scale: float = 0.0,
        norm_first: bool = False,
        patch_bias: bool = True,
        project: int = 0,
        eps: float = 1e-6,
        layout: str = "",  # noqa: ARG002 - kept in the settings
    ) -> None:
        super().__init__()
        self.grid = (grid, grid) if isinstance(grid, int) else (int(grid[0]), int(grid[1]))
        _check(width, depth, heads, patch, *self.grid, features=features, class_token=class_token)
        for name, value, kinds in (
            ("activation", activation, get_args(Activation)),
            ("positions", positions, ("learned", "rope")),
            ("resampling", resampling, get_args(Resampling)),
        ):
            one_of(name, value, kinds)
        if positions == "rope" and width // heads % 4:
            raise MetarepError(f"positions=rope needs heads of a multiple of 4 features, not {width // heads}")
        self.width, self.side = width, patch
        self.kind: FeatureKind = features
        self.resampling: Resampling = resampling
        self.per_head = width // heads
        hidden = hidden or 4 * width
        self.patch = nn.Conv2d(channels, width, patch, patch, bias=patch_bias)
        self.class_token = nn.Parameter(torch.zeros(width)) if class_token else None
        self.registers = nn.Parameter(torch.zeros(registers, width)) if registers else None
        rows = math.prod(self.grid) + class_token  # the class token has the first one
        self.positions = nn.Parameter(torch.zeros(rows, width)) if positions == "learned" else None
        self.norm_first = nn.LayerNorm(width, eps) if norm_first else None
        self.blocks = nn.ModuleList(Block(width, heads, hidden, activation, eps, layer_scale) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps)
        self.pool = AttentionPool(width, heads, hidden, activation, eps) if features == "attention" else None
        self.project = nn.Linear(width, project, bias=False) if project else None
        _initialise(self)

    def dim_at(self, size: tuple[int, int]) -> int:
        """The number of features of an image of this size, which must be a multiple of the patch."""
        self._refuse_rest(*size)
        each = self.width if self.project is None else self.project.out_features
        return 2 * each if self.kind == "both" else each

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        """Features of normalised images."""
        tokens, patches = self.tokens(x)
        return features_of(tokens, patches, self.kind, self.pool, self.project)

    def tokens(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b n width"], int]:
        """All tokens after the last norm, and the number of patches, which come last.

        The class token comes first, and registers come between.

        Raises:
            MetarepError: the size of the images is not a multiple of the patch.
        """
        x, turn, patches = self.embedded(x)
        for block in self.blocks:
            x = block(x, turn)
        return self.norm(x), patches

    def embedded(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b n width"], Rotation | None, int]:
        """All tokens before the first block; the rotation of their positions, if there is one; the number of patches.

        Raises:
            MetarepError: see :meth:`tokens`.
        """
        self._refuse_rest(*x.shape[-2:])
        x = self.patch(x)
        grid = (x.shape[-2], x.shape[-1])
        x = x.flatten(2).mT
        front, turn = [], None
        if self.class_token is not None:
            first = self.class_token if self.positions is None else self.class_token + self.positions[0]
            front.append(first.expand(x.shape[0], 1, -1))
        if self.positions is None:
            turn = rotation(grid, self.per_head, x)
        else:
            x = x + resampled(self.positions[len(front) :], self.grid, grid, self.resampling)
        if self.registers is not None:
            front.append(self.registers.expand(x.shape[0], -1, -1))
        patches = x.shape[1]
        x = torch.cat([*front, x], dim=1)
        return x if self.norm_first is None else self.norm_first(x), turn, patches

    def _refuse_rest(self, height: int, width: int) -> None:
        """Raise unless the image divides into whole patches."""
        if height % self.side or width % self.side or not height or not width:
            near = max(1, round(height / self.side)) * self.side
            raise MetarepError(
                f"images of {height} x {width} px do not divide into patches of {self.side} px; "
                f"take a size of {near} px, or another multiple of {self.side}"
            )


def _check(
    width: int, depth: int, heads: int, patch: int, rows: int, columns: int, *, features: str, class_token: bool
) -> None:
    one_of("features", features, get_args(FeatureKind))
    settings = {"width": width, "depth": depth, "heads": heads, "patch": patch, "grid": min(rows, columns)}
    for name, value in settings.items():
        if not 1 <= value <= (most := DEEPEST if name == "depth" else MOST):
            raise MetarepError(f"{name} must be from 1 to {most:,}, not {value}")
    if width % heads:
        raise MetarepError(f"width={width} is not a multiple of heads={heads}; each head has width / heads features")
    if not class_token and features in ("class", "both"):
        raise MetarepError(f"features={features} needs a class token, and class_token=False has none; take mean")


@torch.no_grad()
def _initialise(vit: ViT) -> None:
    """Random weights as in the paper: Glorot for layers, a small deviation for tokens and positions."""
    layers = [layer for layer in vit.modules() if isinstance(layer, nn.Linear)]
    for layer in (vit.patch, *layers):  # the convolution is a linear layer on each patch
        limit = math.sqrt(6 / (layer.weight.shape[0] + layer.weight[0].numel()))
        layer.weight.uniform_(-limit, limit)
        if layer.bias is not None:
            layer.bias.zero_()
    probe = None if vit.pool is None else vit.pool.probe
    for token in (vit.class_token, vit.registers, vit.positions, probe):
        if token is not None:
            token.normal_(std=0.02)


SIZES: dict[str, dict[str, int]] = {
    "vit-tiny": {"width": 64, "depth": 4, "heads": 4, "patch": 4},
    **{
        f"vit-{letter}{patch}": {"width": width, "depth": depth, "heads": heads, "patch": patch}
        for letter, width, depth, heads in (("s", 384, 12, 6), ("b", 768, 12, 12), ("l", 1024, 24, 16))
        for patch in (8, 14, 16, 32)
    },
}
"""Settings of the usual sizes by name; ``vit-tiny`` is for images of about 28 px and for tests."""
