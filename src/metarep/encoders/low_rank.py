"""LoRA: low-rank updates of linear layers and convolutions, which can be merged into the plain weights."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from metarep.encoders.encoder import Encoder
from metarep.errors import MetarepError

ALPHA = 16  # numerator of the factor alpha / rank of an update
MOST = 1024  # the largest rank; a damaged file may ask for more


class LowRank(nn.Module):
    """A weight plus a low-rank update: ``weight + alpha / rank * (up @ down)``, with ``alpha`` 16.

    Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021. ``down`` starts at random and ``up`` at zero,
    so at the start the weight is exactly what it was.

    Args:
        weight: of shape ``(out, ...)``; the update has the rank ``rank`` as a matrix with ``out`` rows.
        rank: rank of the update, at least 1.
        generator: draws ``down``.

    >>> weight = torch.eye(4)
    >>> LowRank(weight, 2, Generator().manual_seed(0))(weight).equal(weight)
    True
    """

    def __init__(self, weight: Tensor, rank: int, generator: Generator) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        like = {"dtype": weight.dtype, "device": weight.device}
        drawn = torch.zeros(rank, columns)
        if not weight.is_meta:
            drawn = torch.randn(rank, columns, generator=generator) / columns**0.5
        self.down = nn.Parameter(drawn.to(**like))
        self.up = nn.Parameter(torch.zeros(rows, rank, **like))
        self.factor = ALPHA / rank

    def forward(self, weight: Float[Tensor, "out *rest"]) -> Float[Tensor, "out *rest"]:
        """The weight with its update, in the same shape."""
        return weight + self.factor * (self.up @ self.down).view_as(weight)


def add_low_rank(body: nn.Module, rank: int, seed: int = 0, *, share: float = 1.0) -> list[nn.Parameter]:
    """Give every linear layer and every convolution that mixes channels a low-rank update. The features stay the same.

    Depthwise convolutions, whose filters are small already, have none. Afterwards the names of the weights in the state
    dict are others; :func:`merge_low_rank` restores them.

    Args:
        body: changed in place.
        rank: rank of each update, from 1 to 1,024.
        seed: seed of the random factors.
        share: of the weights of these layers, from the last one on; the layers before them have no update.

    Returns:
        The new parameters: two matrices for each layer.

    Raises:
        MetarepError: the rank is out of range, or no layer can have an update.

    >>> body = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    >>> [tuple(weight.shape) for weight in add_low_rank(body, 2)]
    [(2, 3), (8, 2), (2, 8), (2, 2)]
    """
    if not 1 <= rank <= MOST:
        raise MetarepError(f"the rank of LoRA must be from 1 to {MOST:,}, not {rank}")
    generator = Generator().manual_seed(seed)
    added: list[nn.Parameter] = []
    for layer in _last([each for each in body.modules() if _mixes(each)], share):
        update = LowRank(layer.weight, rank, generator)  # pyright: ignore[reportArgumentType]
        parametrize.register_parametrization(layer, "weight", update)
        added += [update.down, update.up]
    if not added:
        raise MetarepError("no layer of this encoder can have a low-rank update: it has no linear layer or convolution")
    return added


def is_rank(text: str) -> bool:
    """Whether a text is a rank that updates may have, such as the 8 of ``lora:8``.

    >>> is_rank("8"), is_rank("0")
    (True, False)
    """
    return text.isdecimal() and 1 <= int(text) <= MOST


def lend_low_rank(encoder: Encoder, rank: int) -> None:
    """Give an encoder low-rank updates, which alone are trained, and note their rank in its ``arch``.

    So a checkpoint can rebuild it. The features stay the same.

    Args:
        encoder: changed in place.
        rank: rank of each update, from 1 to 1,024.

    Raises:
        MetarepError: see :func:`add_low_rank`.

    >>> from metarep.encoders.preprocess import Preprocess
    >>> encoder = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), Preprocess((2, 2), 1, (0.0,), (1.0,)))
    >>> lend_low_rank(encoder, 1)
    >>> encoder.arch["low_rank"], [tuple(weight.shape) for weight in encoder.parameters() if weight.requires_grad]
    (1, [(1, 4), (2, 1)])
    """
    encoder.body.requires_grad_(False)
    add_low_rank(encoder.body, rank)
    encoder.arch = {**encoder.arch, "low_rank": rank}


def merge_encoder(encoder: Encoder) -> None:
    """Put the low-rank updates of an encoder into its weights, so that it is one without any.

    Args:
        encoder: changed in place, if its ``arch`` has low-rank updates.
    """
    if encoder.arch.get("low_rank"):
        merge_low_rank(encoder.body)
        encoder.arch = {name: value for name, value in encoder.arch.items() if name != "low_rank"}
        encoder.body.requires_grad_(True)


def merge_low_rank(body: nn.Module) -> None:
    """Put the low-rank updates into the weights. The features stay the same, and the state dict has its old names.

    Args:
        body: changed in place; a body without updates is not changed.

    >>> body = nn.Sequential(nn.Linear(4, 4))
    >>> _ = add_low_rank(body, 2)
    >>> list(body.state_dict())[1:]
    ['0.parametrizations.weight.original', '0.parametrizations.weight.0.down', '0.parametrizations.weight.0.up']
    >>> merge_low_rank(body)
    >>> sorted(body.state_dict())
    ['0.bias', '0.weight']
    """
    for layer in list(body.modules()):
        if parametrize.is_parametrized(layer, "weight") and any(
            isinstance(each, LowRank)
            for each in layer.parametrizations["weight"]  # pyright: ignore
        ):
            wanted = layer.parametrizations["weight"].original.requires_grad  # pyright: ignore
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            layer.weight.requires_grad_(wanted)  # pyright: ignore


def low_rank_parameters(body: nn.Module) -> set[int]:
    """The ``id`` of each parameter of a low-rank update.

    >>> body = nn.Sequential(nn.Linear(4, 4))
    >>> added = add_low_rank(body, 2)
    >>> low_rank_parameters(body) == set(map(id, added))
    True
    """
    return {id(each) for layer in body.modules() if isinstance(layer, LowRank) for each in layer.parameters()}


def _last(layers: list[nn.Module], share: float) -> list[nn.Module]:
    """The last layers, as few as hold this share of the weights, in their order."""
    sizes = [layer.weight.numel() for layer in layers]  # pyright: ignore[reportCallIssue]
    held, first = 0, len(layers)
    while first and held < share * sum(sizes):
        first -= 1
        held += sizes[first]
    return layers[first:]


def _mixes(layer: nn.Module) -> bool:
    if parametrize.is_parametrized(layer):
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1
    return type(layer) is nn.Linear
