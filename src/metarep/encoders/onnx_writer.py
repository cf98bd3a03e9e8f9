"""Modules as ONNX graphs, written whole or not at all; and an encoder whose body becomes one."""

import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from metarep.encoders import Encoder
from metarep.encoders.onnx import OnnxBody, encoder_of_graph
from metarep.errors import MetarepError, missing_extra

CLOSE = 1e-3  # of the length of features: what a graph may give otherwise than the module that it is of


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


def as_onnx(encoder: Encoder) -> Encoder:
    """The same encoder with its body as an ONNX graph, which can be saved, and moved to machines without its code.

    Raises:
        MetarepError: the module cannot be written as a graph, or the graph gives other features.
    """
    name, wanted = encoder.arch["name"], encoder.preprocess
    images = torch.rand(3, wanted.channels, *wanted.size, generator=Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "body.onnx"
        try:
            write_onnx(_Features(encoder), images[:2], path, input_name="images", output_names=["features"])
        except MetarepError:
            raise
        except Exception as error:  # what a body does may be beyond what a graph can say
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise MetarepError(
                f"{name} is a module of your own, which is saved as an ONNX graph, and torch cannot write it as one: "
                f"{reason}"
            ) from error
        content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    body = OnnxBody(wanted.channels, size=len(content))
    body.load_state_dict({"content": content})
    graph = encoder_of_graph(body, wanted)
    graph.feature_means, graph.feature_spread = encoder.feature_means, encoder.feature_spread
    graph.classifier = encoder.classifier
    with torch.no_grad():
        want, got = (_rows(each, images) for each in (encoder, graph))
    apart = (want - got).norm() / want.norm().clamp_min(1e-12)
    if not math.isfinite(apart) or apart > CLOSE:
        raise MetarepError(
            f"{name} is a module of your own, which is saved as an ONNX graph, and its graph gives other features: "
            f"they are {apart:.2g} of their length apart"
        )
    return graph


class _Features(nn.Module):
    """From normalised images to features, as the encoder has them."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.features(images)


def _rows(encoder: Encoder, images: Tensor) -> Tensor:
    """Features of all images at once, and of the first alone."""
    return torch.cat([encoder.features(images), encoder.features(images[:1])])


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
