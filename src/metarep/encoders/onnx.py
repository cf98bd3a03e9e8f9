"""OnnxBody: somebody's network in an ONNX file, as the body of an encoder."""

from typing import Any

import torch
from torch import Tensor, nn

from metarep.errors import MetarepError, missing_extra


class OnnxBody(nn.Module):
    """Runs an ONNX graph on the processor; it cannot be trained.

    The graph is kept as a buffer of bytes, so it is saved, loaded and digested like any weight. It takes one input
    ``(b, c, h, w)`` and its first output is one row of features an image; maps ``(b, dim, 1, 1)`` are flattened.

    Args:
        channels: of the images.
        size: of the file in bytes; the buffer has as many.

    Raises:
        MetarepError: onnxruntime is not installed, or the file is no ONNX graph.
    """

    content: Tensor

    def __init__(self, channels: int, *, size: int) -> None:  # noqa: ARG002 - the graph knows its channels
        super().__init__()
        self.register_buffer("content", torch.zeros(size, dtype=torch.uint8))
        self._session: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.content.any():
            return x.new_zeros(len(x), 1)  # no graph has been loaded yet
        session = self._open()
        try:
            features = session.run(None, {session.get_inputs()[0].name: x.contiguous().float().cpu().numpy()})[0]
        except Exception as error:  # onnxruntime has a dozen kinds
            reason = " ".join(str(error).split())
            raise MetarepError(f"the ONNX graph does not take images {tuple(x.shape)} in float32: {reason}") from error
        return torch.from_numpy(features).flatten(1).to(x.device)

    def _open(self) -> Any:  # noqa: ANN401 - onnxruntime's own
        if self._session is None:
            try:
                import onnxruntime  # pyright: ignore[reportMissingImports]
            except ImportError:
                raise missing_extra("an ONNX encoder", "onnxruntime", "onnx") from None
            try:
                self._session = onnxruntime.InferenceSession(self.content.numpy().tobytes())
            except Exception as error:  # onnxruntime has a dozen kinds
                raise MetarepError(f"this is no ONNX graph that onnxruntime can run: {error}") from error
        return self._session

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - torch's own
        super()._load_from_state_dict(*args, **kwargs)
        self._session = None  # of the graph that was here before
