"""Class means, for prototypes and for heads that start from prototypes."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def class_means(
    rows: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
) -> Float[Tensor, "task ways dim"]:
    """The mean support row of each class; a class without rows gets zeros.

    >>> import torch
    >>> class_means(torch.tensor([[[1.0, 0.0], [3.0, 4.0]]]), torch.tensor([[1, 1]]), ways=2)
    tensor([[[0., 0.],
             [2., 2.]]])
    """
    member = functional.one_hot(labels, ways).to(rows).mT  # task ways support
    return member @ rows / member.sum(-1, keepdim=True).clamp_min(1)
