"""Checks whether operations on a tensor run eagerly on the CPU."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def eager_on_cpu(x: Tensor) -> bool:
    """Returns whether ``x`` is on the CPU, without compilation, tracing, vmap or forward-mode differentiation.

    Only then may a function call C code with the address of a tensor.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return forward_ad._current_level < 0 and not torch._C._functorch.is_functorch_wrapped_tensor(x)  # pyright: ignore[reportAttributeAccessIssue]
