"""Export: encoder and classes in one graph, for programs that have no metarep."""

import io
import json
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from metarep.data.reading.photographs import STRETCH
from metarep.encoders.onnx import OnnxBody
from metarep.encoders.onnx_writer import quietly, require_onnx, write_onnx
from metarep.errors import Advice, MetarepError
from metarep.machine.files import replacing
from metarep.model.model import Model

OUTPUTS = ("probabilities", "scores", "familiarity")
EXAMPLES = 2  # images in the batch that is traced; the graph takes any number


class Deployed(nn.Module):
    """From uint8 images of the encoder's size to calibrated probabilities, raw scores and familiarity.

    Args:
        model: with at least two classes, and a learner that leaves the encoder as it is.

    Raises:
        MetarepError: the learner adapts the body, there are no classes, or the encoder is an ONNX graph itself.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        if len(model.gallery.names) < 2:
            raise MetarepError("a model needs two classes before it can be exported")
        if model.gallery.rows.ndim != 2:
            raise MetarepError(
                f"the learner {model.learner.called!r} adapts the encoder to the classes, so there is no one graph to "
                "export",
                advice=Advice("fit with {learner} or linear", learner="prototypes"),
            )
        if isinstance(model.learner.encoder.body, OnnxBody):
            raise MetarepError(
                "the encoder is an ONNX graph, which torch cannot export anew; fit with the network that it was made of"
            )
        self.learner, self.scale = model.learner, model.trust.scale
        self.familiarity = model.self_test.familiarity
        self.names = list(model.state)
        for name in self.names:
            self.register_buffer(f"state_{name}", model.state[name])

    def forward(
        self, images: UInt8[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b ways"], Float[Tensor, "b ways"], Float[Tensor, " b"]]:
        """Probabilities, scores, and familiarity, which is at least ``trust.known`` for what is like the classes."""
        state = {name: self.get_buffer(f"state_{name}") for name in self.names}
        rows = self.learner.prepare(images)
        scores = self.learner.logits(state, rows.unsqueeze(0))[0]
        return (scores * self.scale).softmax(-1), scores, self.familiarity.score(rows)


def export_onnx(model: Model, path: Path) -> None:
    """Write ``path``: input ``images`` (uint8, any batch), outputs ``probabilities``, ``scores`` and ``familiarity``.

    The names of the classes, the thresholds and the shape of the images stand in its metadata as JSON under
    ``metarep``; ``docs/your-own-images.md`` says what each means.

    Raises:
        MetarepError: see :class:`Deployed`; or the packages are missing.
    """
    require_onnx()
    import onnx

    deployed, images = Deployed(model).eval(), _example(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        _write_onnx(deployed, images, partial)
        graph = onnx.load(str(partial))
        entry = graph.metadata_props.add()
        entry.key, entry.value = "metarep", json.dumps(_facts(model))
        onnx.save(graph, str(partial))


def _write_onnx(deployed: Deployed, images: Tensor, path: Path) -> None:
    write_onnx(deployed, images, path, input_name="images", output_names=OUTPUTS)


def export_torch(model: Model, path: Path) -> None:
    """Write ``path`` (``.pt2``) for ``torch.export.load``; the names of the classes are in ``metarep.json`` inside."""
    deployed, images = Deployed(model).eval(), _example(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with quietly():
        shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
        program = torch.export.export(deployed, (images,), dynamic_shapes=shapes)
        content = io.BytesIO()  # torch ends the process where a disk is full
        torch.export.save(program, content, extra_files={"metarep.json": json.dumps(_facts(model))})
    with replacing(path) as partial:
        partial.write_bytes(content.getvalue())


def _example(model: Model) -> UInt8[Tensor, "b c h w"]:
    preprocess = model.learner.encoder.preprocess
    return torch.zeros(EXAMPLES, preprocess.channels, *preprocess.size, dtype=torch.uint8)


def _facts(model: Model) -> dict[str, object]:
    preprocess = model.learner.encoder.preprocess
    return {
        "classes": model.gallery.names,
        "size": preprocess.size,
        "channels": preprocess.channels,
        "layout": "NCHW, RGB or grey, 0 to 255",
        "stretch": STRETCH,
        "trust": model.trust.as_dict(),
    }
