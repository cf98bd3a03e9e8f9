"""Bodies that people bring: small faithful models of timm's, torchvision's and transformers' layers, for 8 px images.

Each takes ``(b, 1, 8, 8)`` and gives ``(b, 6)``. ``PLAIN`` makes them without a wrapper, for oracles.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

C = 6


class BatchNormAct2d(nn.BatchNorm2d):
    """As timm's: batch norm with the activation inside."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        training = self.training or self.running_mean is None
        statistics = self.running_mean, self.running_var
        if self.training and not self.track_running_stats:
            statistics = None, None
        x = functional.batch_norm(x, *statistics, self.weight, self.bias, training, self.momentum, self.eps)
        return functional.silu(x)


class LayerNorm2d(nn.LayerNorm):
    """As timm's and torchvision's: over the channels of maps."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class RMSNorm(nn.LayerNorm):
    """Root mean square norm built on LayerNorm, without a mean."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight


class FrozenBatchNorm2d(nn.Module):
    """As torchvision's: all four are buffers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.3), ("bias", 0.1), ("running_mean", 0.2), ("running_var", 0.7)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        w, b, rm, rv = (
            each.reshape(1, -1, 1, 1) for each in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = w * (rv + 1e-5).rsqrt()
        return x * scale + (b - rm * scale)


class DropPath(nn.Module):
    """Stochastic depth as timm has it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(0.7).div_(0.7)


class Attention(nn.Module):
    """As timm's ViT; with a table of relative positions, as Swin's, where ``side`` is given."""

    def __init__(self, heads: int = 2, side: int = 0) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv, self.proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        if side:
            self.relative_position_bias_table = nn.Parameter(0.3 * torch.randn((2 * side - 1) ** 2, heads))
            grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
            apart = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + side - 1
            self.register_buffer("relative_position_index", apart[..., 0] * (2 * side - 1) + apart[..., 1])

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        bias = None
        if self.side:
            bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(n, n, -1)
            bias = bias.permute(2, 0, 1).unsqueeze(0)
        x = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(b, n, C))


class Transformer(nn.Module):
    """Patches, a token for the class, one block, and a norm."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.LayerNorm, swin: bool = False) -> None:
        super().__init__()
        self.embed, self.swin = nn.Conv2d(1, C, 4, 4), swin
        if not swin:
            self.cls_token, self.pos_embed = nn.Parameter(torch.randn(1, 1, C)), nn.Parameter(torch.randn(1, 5, C))
        self.norm1, self.norm2, self.norm = norm(C), norm(C), norm(C)
        self.attn = Attention(side=2 if swin else 0)
        self.mlp = nn.Sequential(nn.Linear(C, 2 * C), nn.GELU(), nn.Linear(2 * C, C))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        if not self.swin:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        x = x + self.attn(self.norm1(x))
        x = self.norm(x + self.mlp(self.norm2(x)))
        return x.mean(1) if self.swin else x[:, 0]


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, C, 2, 2), LayerNorm2d(C))
        self.depthwise, self.norm = nn.Conv2d(C, C, 3, padding=1, groups=C), LayerNorm2d(C)
        self.mlp = nn.Sequential(nn.Conv2d(C, 2 * C, 1), nn.GELU(), nn.Conv2d(2 * C, C, 1))
        self.gamma = nn.Parameter(torch.rand(C, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (x + self.gamma * self.mlp(self.norm(self.depthwise(x)))).mean((2, 3))


class SqueezeExcite(nn.Module):
    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2, self.gate = nn.Conv2d(C, 2, 1), nn.Conv2d(2, C, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))))


class MBConv(nn.Module):
    """As EfficientNet's and MobileNet's."""

    def __init__(self, gate: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, C, 3, 2, 1, bias=False), nn.BatchNorm2d(C), nn.Hardswish())
        self.block = nn.Sequential(
            nn.Conv2d(C, C, 3, 1, 1, groups=C, bias=False), nn.BatchNorm2d(C), nn.SiLU(), SqueezeExcite(gate()),
            nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (x + self.block(x)).mean((2, 3))


class Reshaping(nn.Module):
    """Reshapes its maps with ``view``, which does not work in every memory format."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.conv2 = nn.Conv2d(1, C, 3, 2, 1), nn.BatchNorm2d(C), nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.norm1(self.conv1(x)))
        return self.conv2(torch.tanh(x.view(len(x), -1)).view_as(x)).square().mean((2, 3))


class RepVGG(nn.Module):
    """A block as RepVGG's: beside the 3 x 3 convolution a strided one of 1 x 1 over few channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 1)
        self.wide, self.narrow = nn.Conv2d(3, C, 3, 2, 1, bias=False), nn.Conv2d(3, C, 1, 2, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(C), nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return functional.silu(self.norm1(self.wide(x)) + self.norm2(self.narrow(x))).mean((2, 3))


class Small(nn.Module):
    """Two convolutions, each with a norm, and what is put between."""

    def __init__(self, first: nn.Module, second: nn.Module | None = None, between: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, C, 3, 2, 1), first
        self.between = between or nn.Identity()
        self.conv2, self.norm2 = nn.Conv2d(C, C, 3, 1, 1), second or nn.GroupNorm(2, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(functional.gelu(self.norm1(self.conv1(x))))
        return functional.softplus(self.norm2(self.conv2(x))).mean((2, 3))


class Parent(nn.Module):
    """A convolution and a norm that somebody else has too."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.called_again = nn.Conv2d(C, C, 1), norm, norm

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.norm(self.conv(x)))


class Tokens(nn.Module):
    """A batch norm over all tokens of all images, as LeViT's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.linear, self.bn = nn.Conv2d(1, C, 4, 4), nn.Linear(C, C, bias=False), nn.BatchNorm1d(C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.embed(x).flatten(2).mT)
        return functional.hardswish(self.bn(x.flatten(0, 1)).reshape_as(x)).mean(1)


class Twice(Small):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm1(self.conv1(x)))
        return torch.tanh(self.norm1(self.conv2(x))).mean((2, 3)) + self.norm1(x[:, :, ::2]).square().mean((2, 3))


class EvoNorm(nn.Module):
    """As timm's EvoNormB0: a running variance in a formula of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(C))
        self.register_buffer("running_var", torch.ones(C))

    def forward(self, x: Tensor) -> Tensor:
        variance = self.running_var
        if self.training:
            variance = x.var((0, 2, 3))
            self.running_var.copy_(self.running_var * 0.9 + 0.1 * variance.detach())
        return x / (variance.view(1, -1, 1, 1) + 1e-5).sqrt() * self.weight.view(1, -1, 1, 1)


class OwnBatchNorm(nn.BatchNorm2d):
    """A subclass with arithmetic of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean((0, 2, 3), keepdim=True)) / (x.std((0, 2, 3), keepdim=True) + self.eps)


def hooked() -> nn.Module:
    body = Small(nn.BatchNorm2d(C), nn.BatchNorm2d(C))
    scale = body.conv2
    body.norm1.register_forward_hook(lambda module, given, found: found * scale.bias.view(1, -1, 1, 1) + found.abs())
    body.conv2.register_forward_pre_hook(lambda module, given: (given[0].tanh(),))
    return body


def patched() -> nn.Module:
    body = Small(nn.BatchNorm2d(C), nn.BatchNorm2d(C))
    first, old = body.norm2, body.norm2.forward
    first.forward = lambda x: old(x).square() + old.__self__.weight.sum() * x
    old_conv = body.conv1.forward
    body.conv1.forward = lambda x, old=old_conv: torch.sin(old(x))
    return body


def frozen() -> nn.Module:
    body = Small(nn.BatchNorm2d(C), nn.BatchNorm2d(C))
    body.conv1.requires_grad_(False)
    body.norm1.weight.requires_grad_(False)
    return body


def tied() -> nn.Module:
    body = Small(nn.BatchNorm2d(C), nn.BatchNorm2d(C), nn.Conv2d(C, C, 3, 1, 1))
    body.between.weight = body.conv2.weight
    return body


def weight_normed() -> nn.Module:
    body = Small(nn.BatchNorm2d(C), nn.BatchNorm2d(C))
    parametrizations.weight_norm(body.conv1)
    parametrizations.weight_norm(body.norm2)
    return body


def shared() -> nn.Module:
    norm = nn.BatchNorm2d(C)
    return nn.Sequential(nn.Conv2d(1, C, 3, 2, 1), Parent(norm), Parent(norm), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def checkpointed() -> nn.Module:
    class Checkpointed(Small):
        def __init__(self) -> None:
            super().__init__(nn.BatchNorm2d(C), nn.BatchNorm2d(C))
            self.grad_checkpointing = False

        def forward(self, x: Tensor) -> Tensor:
            if self.grad_checkpointing and self.training:
                return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)
            return super().forward(x)

    return Checkpointed()


def saving(body: nn.Module) -> nn.Module:
    body.grad_checkpointing = True
    return body


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "activation inside (timm)": lambda: Small(BatchNormAct2d(C), BatchNormAct2d(C)),
    "ConvNeXt, channels first": ConvNeXt,
    "RMS norm on LayerNorm": lambda: Transformer(lambda channels: RMSNorm(channels, bias=False)),
    "group norm": lambda: Small(nn.GroupNorm(3, C)),
    "instance norm": lambda: Small(nn.InstanceNorm2d(C, affine=True), nn.InstanceNorm2d(C)),
    "ViT": Transformer,
    "Swin": lambda: Transformer(swin=True),
    "MBConv, squeeze and excite": lambda: MBConv(nn.Sigmoid),
    "hard-sigmoid (MobileNetV3)": lambda: MBConv(nn.Hardsigmoid),
    "view of maps": Reshaping,
    "strided 1 x 1 of 3 channels (RepVGG)": RepVGG,
    "stochastic depth": lambda: Small(nn.BatchNorm2d(C), nn.BatchNorm2d(C), DropPath()),
    "dropout": lambda: nn.Sequential(Small(nn.BatchNorm2d(C), nn.BatchNorm2d(C)), nn.Dropout(0.3)),
    "norm of two parents, two names": shared,
    "norm used three times": lambda: Twice(nn.BatchNorm2d(C), nn.Identity()),
    "hooks": hooked,
    "patched forward": patched,
    "weight norm": weight_normed,
    "frozen stem": frozen,
    "tied weights": tied,
    "FrozenBatchNorm (torchvision)": lambda: Small(FrozenBatchNorm2d(C), nn.BatchNorm2d(C)),
    "batch norm over tokens (LeViT)": Tokens,
    "gradient checkpointing": checkpointed,
    "compiled": lambda: Small(nn.BatchNorm2d(C), nn.BatchNorm2d(C)),
    "DataParallel": lambda: Small(nn.BatchNorm2d(C), nn.BatchNorm2d(C)),
}
WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": lambda body: torch.compile(body, backend="eager"),
    "DataParallel": nn.DataParallel,
    "gradient checkpointing": saving,
}
DRAWING = ("stochastic depth", "dropout")
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "Evo norm": (lambda: Small(EvoNorm()), "EvoNorm at 'norm1' changes its buffer 'running_var'"),
    "batch norm of its own": (
        lambda: Small(OwnBatchNorm(C)),
        "norm layer 'norm1' is a OwnBatchNorm, .* does not call batch_norm",
    ),
    "instance norm that tracks": (
        lambda: Small(nn.InstanceNorm2d(C, track_running_stats=True)),
        "'norm1' is a InstanceNorm2d that keeps running statistics, .* track_running_stats=False",
    ),
    "spectral norm": (
        lambda: Small(nn.BatchNorm2d(C), between=parametrizations.spectral_norm(nn.Conv2d(C, C, 1))),
        "_SpectralNorm at 'between.parametrizations.weight.0' changes its buffer '_u'",
    ),
}


def make(name: str, *, plain: bool = False) -> nn.Module:
    """The body of this name in float64; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = (PLAIN[name] if name in PLAIN else REFUSED[name][0])()
        for parameter in body.parameters():
            with torch.no_grad():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        body.double()
    return body if plain else WRAPPERS.get(name, lambda body: body)(body)
