"""OnnxBody: a network in an ONNX file, as the body of an encoder."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metarep.encoders.encoder import Encoder
from metarep.encoders.onnx_graph import refuse_files_beside
from metarep.encoders.preprocess import LARGEST, Preprocess
from metarep.errors import MetarepError, missing_extra, one_line

MOST = 1 << 27  # numbers of a batch of a fixed size: 512 MiB
WIDEST = 1 << 20  # features of an image
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxBody(nn.Module):
    """Runs an ONNX graph on the CPU with onnxruntime. It cannot be trained.

    The graph is kept as a buffer of bytes, so it is saved, loaded, copied and digested like a weight. The graph must
    take one floating-point input ``(b, c, h, w)``. Its first output must be one row of features an image, or
    ``(b, dim, 1, 1)``, which is flattened. A graph with a fixed batch size is run on batches of this size.

    Args:
        channels: channels of the images.
        size: size of the file in bytes, which is the length of the buffer.
        dim: number of features, which is needed before the graph is loaded; 0 if it is not known, as in files of
            earlier versions.

    Raises:
        MetarepError: onnxruntime is not installed, the file is not an ONNX graph, or its input or output is different.
    """

    content: Tensor

    def __init__(self, channels: int, *, size: int, dim: int = 0) -> None:  # noqa: ARG002 - the graph knows its channels
        super().__init__()
        if not 0 <= dim <= WIDEST:
            raise MetarepError(f"an ONNX graph of {dim} features is not supported; there may be {WIDEST} at most")
        self.dim = dim
        self.register_buffer("content", torch.zeros(size, dtype=torch.uint8))
        self._session: Any = None
        self._process = 0  # the process that opened the session; a forked process does not have its threads

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(b, dim)`` of normalised images ``(b, c, h, w)``, in the dtype and on the device of ``x``."""
        if self.content.is_meta or not self.content.any():
            return x.new_zeros(len(x), self.dim or 1)  # no graph has been loaded yet
        session = self._open()
        images = x.detach().contiguous().cpu().numpy().astype(FLOATS[session.get_inputs()[0].type], copy=False)
        fixed = self.shape[0]
        parts = [images] if fixed is None else [images[i : i + fixed] for i in range(0, len(images), fixed)]
        rows = [self._run(session, part, len(part) if fixed is None else fixed) for part in parts]
        return torch.from_numpy(np.concatenate(rows)).to(x.device, x.dtype)

    @property
    def shape(self) -> tuple[int | None, int | None, int | None, int | None]:
        """Batch size, channels, height and width of the graph's input; None where the graph takes any."""
        batch, channels, height, width = (
            each if isinstance(each, int) and each > 0 else None for each in self._open().get_inputs()[0].shape
        )
        return batch, channels, height, width

    def _run(self, session: Any, images: np.ndarray, count: int) -> np.ndarray:  # noqa: ANN401 - onnxruntime's own
        """Features of at most ``count`` images; a smaller batch is filled up with copies of its last image."""
        length = len(images)
        if length < count:
            images = np.concatenate([images, images[-1:].repeat(count - length, 0)])
        try:
            output = session.get_outputs()[0].name
            features = session.run([output], {session.get_inputs()[0].name: images})[0]
        except Exception as error:  # onnxruntime has a dozen error classes
            reason = one_line(error, 300)
            raise MetarepError(f"the ONNX graph does not take images {images.shape}: {reason}") from error
        shape = features.shape
        if shape[:1] != (count,) or not (len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))):
            raise MetarepError(
                f"the ONNX graph gives {output!r} of the shape {shape} for {count} images; its first output must be "
                f"one row of features an image, ({count}, dim)"
            )
        if shape[1] != (self.dim or shape[1]):
            raise MetarepError(f"the ONNX graph gives {shape[1]} features an image; it was saved as one of {self.dim}")
        return features.reshape(count, -1)[:length]

    def _open(self) -> Any:  # noqa: ANN401 - onnxruntime's own
        """The onnxruntime session of this process; it is opened at the first call."""
        if self._session is None or self._process != os.getpid():
            try:
                import onnxruntime  # pyright: ignore[reportMissingImports]
            except ImportError:
                raise missing_extra("an ONNX encoder", "onnxruntime", "onnx") from None
            content = self.content.cpu().numpy().tobytes()
            refuse_files_beside(content)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # errors are raised; do not print them as well
            options.intra_op_num_threads = torch.get_num_threads()
            options.add_session_config_entry("session.load_model_format", "ONNX")
            try:
                session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime has a dozen error classes
                reason = one_line(error, 300)
                raise MetarepError(f"onnxruntime cannot run this ONNX graph: {reason}") from error
            _check_input(session.get_inputs())
            self._session, self._process = session, os.getpid()
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: all but the session, which each copy opens again."""
        return {**super().__getstate__(), "_session": None}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - torch's own
        super()._load_from_state_dict(*args, **kwargs)
        self._session = None  # it belongs to the graph that was loaded before


def _check_input(inputs: Sequence[Any]) -> None:
    if len(inputs) != 1:
        names = ", ".join(repr(each.name) for each in inputs) or "none"
        raise MetarepError(f"the ONNX graph takes the inputs {names}; an encoder takes one, of images")
    dtype, shape = inputs[0].type, inputs[0].shape
    if dtype not in FLOATS:
        raise MetarepError(f"the ONNX graph takes {dtype}; an encoder takes normalised images, as {', '.join(FLOATS)}")
    if len(shape) != 4:
        raise MetarepError(f"the ONNX graph takes an input of the shape {shape}; an encoder takes (b, c, h, w)")
    sides = [side for side in shape if isinstance(side, int)]
    if any(side > LARGEST for side in sides[-2:]) or math.prod(max(1, side) for side in sides) > MOST:
        raise MetarepError(
            f"the ONNX graph takes batches of the shape {shape}, which would fill the memory; export it with a free or "
            "a smaller batch"
        )
    if isinstance(shape[1], int) and shape[1] not in (1, 3):
        hint = "; put a Transpose in front of it" if shape[3] in (1, 3) else ""
        raise MetarepError(f"the ONNX graph takes (b, c, h, w) = {shape}, and images have 1 or 3 channels{hint}")


def encoder_of_graph(body: OnnxBody, preprocess: Preprocess) -> Encoder:
    """The encoder of a graph that was loaded, in evaluation mode; what it saves states the number of its features.

    Args:
        body: the graph.
        preprocess: how its images are prepared.
    """
    encoder = Encoder(body, preprocess, {"name": "onnx", "size": len(body.content)}).eval()
    encoder.arch["dim"] = body.dim = encoder.dim
    return encoder
