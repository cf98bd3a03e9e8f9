"""The only access to :mod:`metarep.fast`: each function returns a result faster, or None if it cannot.

Each caller has plain code of its own, which it runs if the result is None (or False). So ``metarep/fast`` may be
deleted: everything works as before, but slower. It is a plug-in that imports packages above this one, so its modules
are imported by name, at the first call that needs them.
"""

import functools
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor, nn

_spec = find_spec("metarep.fast")
PRESENT = _spec is not None and _spec.origin is not None  # an empty folder of that name has no origin


@functools.cache
def _function(module: str, name: str) -> Any:  # noqa: ANN401 - a function of fast/, typed where it is called
    """Returns a function of the plug-in."""
    return getattr(import_module(f"metarep.fast.{module}"), name)


def conv4_block(block: nn.Sequential, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"] | None:
    """Runs a block of Conv4 on images on the CPU, and updates running statistics as its norm layer would.

    Returns None if its layers must run one by one: it has another layer or a hook, or the C code does not support it.
    """
    if not PRESENT:
        return None
    return _function("conv4_block", "run_block")(block, x)


def convolve_small(
    x: Float[Tensor, "b c h w"], weight: Float[Tensor, "out c 3 3"]
) -> Float[Tensor, "b out h w"] | None:
    """Convolves maps on the CPU under bfloat16 autocast, zero-padded, as one matrix product.

    Returns None where the kernels of torch are as fast: on maps of more than 5x5 pixels, and with fewer than 320
    channels.
    """
    if not PRESENT:
        return None
    return _function("small_map", "convolve_small")(x, weight)


def sample(x: Num[Tensor, "n c h w"], matrix: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c h w"] | None:
    """Samples each image under its affine map by C code, as :func:`metarep.data.augment.sampling.sample`.

    Returns None unless ``x`` are bytes on the CPU, of a size that the C code supports.
    """
    if not PRESENT:
        return None
    return _function("sampling", "sample_compiled")(x, matrix)


def unit_rows(rows: np.ndarray) -> np.ndarray | None:
    """Scales float32 rows to length 1; a row of zeros stays.

    Returns None if there is no C code, or if a row has NaN or infinite values. Rows that have length 1 already may be
    returned as they are.
    """
    if not PRESENT:
        return None
    return _function("rows", "unit_rows")(rows)


def rows_to_ids(row_ids: np.ndarray, rows: Tensor, scores: Tensor) -> bool:
    """Replaces row numbers of an index by their ids, in place; where a row is -1 (no result) the score becomes -inf.

    Returns False, and changes nothing, if there is no C code.
    """
    if not PRESENT:
        return False
    return _function("rows", "rows_to_ids")(row_ids, rows, scores)


def support_formula(start: Any) -> Any:  # noqa: ANN401 - types of rooms above this one
    """Returns a function that computes the support gradient and its Hessian-vector product by formula.

    ``start`` is a ``Start`` of the inner loop, and the function a ``SupportFormula``.

    Returns None unless the encoder is an unchanged Conv4 on the CPU that does not use running statistics.
    """
    if not PRESENT:
        return None
    return _function("support_formula", "of_one_task")(start.encoder, start.normalisation)


def many_tasks(start: Any, x: Tensor, *, always: bool = False) -> Any:  # noqa: ANN401 - as above
    """Returns the inner loop of all tasks of a batch at once.

    Args:
        start: a ``Start`` of the inner loop, the modules that the tasks start from.
        x: images of the tasks.
        always: also on other devices than NVIDIA GPUs, where it is slower than one task after another.

    Returns:
        A ``ManyTasks`` of ``fast/``. None unless ``x`` is on an NVIDIA GPU (or ``always``) and the encoder is an
        unchanged Conv4.

    Raises:
        MetarepError: ``always``, and the encoder is not an unchanged Conv4.
    """
    if not PRESENT:
        return None
    return _function("many_tasks", "many_tasks")(start, x, always=always)


def shared_memory() -> Any:  # noqa: ANN401 - as above
    """Returns a ``SharedMemory``, by which the processes of torch's process group exchange tensors on the CPU.

    All processes must call this at the same time.

    Returns None unless they are joined by gloo and run on one machine that can share memory (Linux).
    """
    if not PRESENT:
        return None
    return _function("shared_memory", "shared_memory")()
