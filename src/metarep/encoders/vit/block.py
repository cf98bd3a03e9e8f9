"""Block: self-attention and a perceptron on every token, each with a norm before it and a shortcut around it."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders.vit.positions import rotate

Activation = Literal["gelu", "gelu-tanh", "quick-gelu", "swiglu"]
Rotation = tuple[Tensor, Tensor]


def quick_gelu(x: Tensor) -> Tensor:
    """The activation of OpenAI's CLIP: an approximation of GELU by a sigmoid.

    >>> quick_gelu(torch.tensor([0.0, 100.0]))
    tensor([  0., 100.])
    """
    return x * (1.702 * x).sigmoid()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu-tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick-gelu": quick_gelu,
    "swiglu": functional.silu,
}


class Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al., Attention Is All You Need, 2017).

    It calls torch's ``scaled_dot_product_attention``. Trap: torch's fused kernels have no second derivative. Where an
    inner loop is differentiated, :func:`metarep.learners.inner_loop.meta_loss` therefore chooses the kernel that is
    written in plain arithmetic.

    Args:
        width: features of a token.
        heads: number of heads, which divides ``width``.

    >>> Attention(8, 2)(torch.zeros(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n width"], rotation: Rotation | None = None) -> Float[Tensor, "b n width"]:
        """What each token gathers from all tokens.

        Args:
            x: tokens.
            rotation: cosine and sine for each patch; patches are the last tokens. None for no rotation.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if rotation is not None:
            q, k = (_rotated(each, rotation) for each in (q, k))
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _rotated(x: Float[Tensor, "b heads n dim"], rotation: Rotation) -> Float[Tensor, "b heads n dim"]:
    front = x.shape[2] - len(rotation[0])
    return torch.cat([x[:, :, :front], rotate(x[:, :, front:], *rotation)], dim=2)


class MLP(nn.Module):
    """A perceptron with one hidden layer; with ``swiglu`` the hidden layer is the product of two (Shazeer 2020).

    Args:
        width: features of a token.
        hidden: features of the hidden layer.
        activation: ``gelu``, ``gelu-tanh``, ``quick-gelu`` or ``swiglu``.

    >>> MLP(8, 16, "swiglu")(torch.zeros(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, width: int, hidden: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.gate = nn.Linear(width, hidden) if activation == "swiglu" else None

    def forward(self, x: Float[Tensor, "*b width"]) -> Float[Tensor, "*b width"]:
        """The perceptron of every token."""
        if self.gate is not None:
            return self.down(self.activation(self.gate(x)) * self.up(x))
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """One layer of a vision transformer: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Args:
        width, heads: see :class:`Attention`.
        hidden, activation: see :class:`MLP`.
        eps: of the norms.
        layer_scale: what each branch is multiplied by at the start, a learned value for each feature (Touvron et al.,
            Going Deeper with Image Transformers, 2021); 0 for no such factor.

    >>> Block(8, 2, 32)(torch.zeros(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: Activation = "gelu",
        eps: float = 1e-6,
        layer_scale: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.attention, self.mlp = Attention(width, heads), MLP(width, hidden, activation)
        self.scale1: nn.Parameter | None
        self.scale2: nn.Parameter | None
        for name in ("scale1", "scale2"):
            self.register_parameter(name, nn.Parameter(torch.full((width,), layer_scale)) if layer_scale else None)

    def forward(self, x: Float[Tensor, "b n width"], rotation: Rotation | None = None) -> Float[Tensor, "b n width"]:
        """The tokens after this layer; ``rotation`` is as in :class:`Attention`."""
        x = x + _scaled(self.attention(self.norm1(x), rotation), self.scale1)
        return x + _scaled(self.mlp(self.norm2(x)), self.scale2)


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale


class AttentionPool(nn.Module):
    """One learned query that gathers from all tokens, and a perceptron on what it gathers: the head of SigLIP.

    Zhai et al., Scaling Vision Transformers, 2022, call it MAP, multi-head attention pooling.

    Args:
        width, heads, hidden, activation, eps: see :class:`Block`.

    >>> AttentionPool(8, 2, 32)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 8])
    """

    def __init__(self, width: int, heads: int, hidden: int, activation: Activation = "gelu", eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.probe = nn.Parameter(torch.zeros(width))
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm, self.mlp = nn.LayerNorm(width, eps), MLP(width, hidden, activation)

    def forward(self, x: Float[Tensor, "b n width"]) -> Float[Tensor, "b width"]:
        """One row of features an image."""
        q = self.q(self.probe.expand(x.shape[0], 1, -1)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))[:, 0]
        return x + self.mlp(self.norm(x))
