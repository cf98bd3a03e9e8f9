"""Modules as ONNX graphs, written whole or not at all."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from metarep.errors import missing_extra


def write_onnx(module: nn.Module, images: Tensor, path: Path, *, input_name: str, output_names: Sequence[str]) -> None:
    """Write a module in evaluation mode as one file, its weights inside, for any number of images.

    Args:
        module: from one tensor, the images first, to one tensor or several.
        images: an example; two of them, for one alone is taken for a constant.
        path: the file.
        input_name, output_names: what they are called in the graph.

    Raises:
        MetarepError: the packages are missing. Whatever else torch raises is not caught.
    """
    require_onnx()
    with quietly():
        torch.onnx.export(
            module,
            (images,),
            str(path),
            input_names=[input_name],
            output_names=list(output_names),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def require_onnx() -> None:
    """Raise if what writes ONNX graphs is not installed."""
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise missing_extra("ONNX export", package, "onnx")


@contextmanager
def quietly() -> Iterator[None]:
    """No graph is kept, and exporters keep their notes on what else is not installed to themselves."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
