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
    """Write a module as one ONNX file with its weights inside, for any batch size.

    Args:
        module: a module in evaluation mode, from one tensor of images to one tensor or several.
        images: example input of two images; with one image, the exporter would fix the batch size.
        path: the file to write.
        input_name, output_names: names of the input and the outputs in the graph.

    Raises:
        MetarepError: a package is not installed. Other errors of the exporter are not caught.
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
    """Raise if a package that writes ONNX graphs is not installed.

    Raises:
        MetarepError: it names the package and how to install it.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise missing_extra("ONNX export", package, "onnx")


@contextmanager
def quietly() -> Iterator[None]:
    """A context without gradients and without the warnings and log messages of torch's ONNX exporter."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
