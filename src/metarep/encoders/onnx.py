"""OnnxBody: somebody's network in an ONNX file, as the body of an encoder."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metarep.encoders.onnx_graph import refuse_files_beside
from metarep.errors import MetarepError, missing_extra

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxBody(nn.Module):
    """Runs an ONNX graph on the processor; it cannot be trained.

    The graph is kept as a buffer of bytes, so it is saved, loaded, copied and digested like any weight. It takes one
    input ``(b, c, h, w)`` in floating point, and its first output is one row of features an image; maps
    ``(b, dim, 1, 1)`` are flattened. A graph for a fixed number of images is run on so many at a time.

    Args:
        channels: of the images.
        size: of the file in bytes; the buffer has as many.

    Raises:
        MetarepError: onnxruntime is not installed, the file is no ONNX graph, or it takes or gives something else.
    """

    content: Tensor

    def __init__(self, channels: int, *, size: int) -> None:  # noqa: ARG002 - the graph knows its channels
        super().__init__()
        self.register_buffer("content", torch.zeros(size, dtype=torch.uint8))
        self._session: Any = None
        self._process = 0  # that opened the session: its threads are not there after a fork

    def forward(self, x: Tensor) -> Tensor:
        if not self.content.any():
            return x.new_zeros(len(x), 1)  # no graph has been loaded yet
        session = self._open()
        images = x.detach().contiguous().cpu().numpy().astype(FLOATS[session.get_inputs()[0].type], copy=False)
        fixed = self.shape[0]
        parts = [images] if fixed is None else [images[at : at + fixed] for at in range(0, len(images), fixed)]
        rows = [self._run(session, part, len(part) if fixed is None else fixed) for part in parts]
        return torch.from_numpy(np.concatenate(rows)).to(x.device, x.dtype)

    @property
    def shape(self) -> tuple[int | None, int | None, int | None, int | None]:
        """Images, channels, height and width that the graph takes; None where it takes any."""
        batch, channels, height, width = (
            each if isinstance(each, int) and each > 0 else None for each in self._open().get_inputs()[0].shape
        )
        return batch, channels, height, width

    def _run(self, session: Any, images: np.ndarray, count: int) -> np.ndarray:  # noqa: ANN401 - onnxruntime's own
        """Features of at most ``count`` images; the last is repeated until they are so many."""
        given = len(images)
        if given < count:
            images = np.concatenate([images, images[-1:].repeat(count - given, 0)])
        try:
            output = session.get_outputs()[0].name
            features = session.run([output], {session.get_inputs()[0].name: images})[0]
        except Exception as error:  # onnxruntime has a dozen kinds
            reason = " ".join(str(error).split())
            raise MetarepError(f"the ONNX graph does not take images {images.shape}: {reason}") from error
        shape = features.shape
        if shape[:1] != (count,) or not (len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))):
            raise MetarepError(
                f"the ONNX graph gives {output!r} of the shape {shape} for {count} images; its first output must be "
                f"one row of features an image, ({count}, dim)"
            )
        return features.reshape(count, -1)[:given]

    def _open(self) -> Any:  # noqa: ANN401 - onnxruntime's own
        if self._session is None or self._process != os.getpid():
            try:
                import onnxruntime  # pyright: ignore[reportMissingImports]
            except ImportError:
                raise missing_extra("an ONNX encoder", "onnxruntime", "onnx") from None
            content = self.content.cpu().numpy().tobytes()
            refuse_files_beside(content)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.add_session_config_entry("session.load_model_format", "ONNX")
            try:
                session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime has a dozen kinds
                raise MetarepError(f"this is no ONNX graph that onnxruntime can run: {error}") from error
            _check_input(session.get_inputs())
            self._session, self._process = session, os.getpid()
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: a session cannot be, and is opened anew."""
        return {**super().__getstate__(), "_session": None}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - torch's own
        super()._load_from_state_dict(*args, **kwargs)
        self._session = None  # of the graph that was here before


def _check_input(inputs: Sequence[Any]) -> None:
    if len(inputs) != 1:
        names = ", ".join(repr(each.name) for each in inputs) or "none"
        raise MetarepError(f"the ONNX graph takes the inputs {names}; an encoder takes one, of images")
    kind, shape = inputs[0].type, inputs[0].shape
    if kind not in FLOATS:
        raise MetarepError(f"the ONNX graph takes {kind}; an encoder takes normalised images, as {', '.join(FLOATS)}")
    if len(shape) != 4:
        raise MetarepError(f"the ONNX graph takes an input of the shape {shape}; an encoder takes (b, c, h, w)")
    if isinstance(shape[1], int) and shape[1] not in (1, 3):
        hint = "; put a Transpose in front of it" if shape[3] in (1, 3) else ""
        raise MetarepError(f"the ONNX graph takes (b, c, h, w) = {shape}, and images have 1 or 3 channels{hint}")
