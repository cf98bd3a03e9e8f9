"""Class means: what prototypes, and heads that start from them, are made of."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def class_means(
    rows: Float[Tensor, "task support dim"], labels: Int[Tensor, "task support"], ways: int
) -> Float[Tensor, "task ways dim"]:
    """The mean row of each class; a class without rows gets zeros."""
    member = functional.one_hot(labels, ways).to(rows).mT  # task ways support
    return member @ rows / member.sum(-1, keepdim=True).clamp_min(1)
