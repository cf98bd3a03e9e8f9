"""Exports encoder and classes as one graph, for programs without metarep."""

import io
import json
from collections.abc import Sequence
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
from metarep.model.trust.familiarity import spread

OUTPUTS = ("probabilities", "scores", "familiarity")
POINTS = "points"  # a further output, for programs that learn classes of their own
EXAMPLES = 2  # images in the batch that is traced; the graph takes a batch of any size


class Deployed(nn.Module):
    """Maps uint8 images of the encoder's size to calibrated probabilities, logits and familiarity.

    Args:
        model: a model with at least two classes, whose learner does not adapt the encoder.

    Raises:
        MetarepError: the learner adapts the encoder, the model has fewer than two classes, or the encoder is an ONNX
            graph itself.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        if len(model.gallery.names) < 2:
            raise MetarepError("the model has fewer than two classes, and cannot be exported; add another class first")
        if model.gallery.rows.ndim != 2:
            why = "adapts the encoder to the classes" if model.gallery.rows.ndim > 3 else "encodes copies of an image"
            raise MetarepError(
                f"the learner {model.learner.called!r} {why}, so it cannot be exported as one graph",
                advice=Advice("fit with {learner} or linear", learner="prototypes"),
            )
        if isinstance(model.learner.encoder.body, OnnxBody):
            raise MetarepError(
                "the encoder is an ONNX graph, which torch cannot export anew; fit with the network it was made from"
            )
        self.learner, self.scale = model.learner, model.trust.scale
        self.familiarity = model.self_test.familiarity
        self.names = list(model.state)
        for name in self.names:
            self.register_buffer(f"state_{name}", model.state[name])

    def forward(
        self, images: UInt8[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b ways"], Float[Tensor, "b ways"], Float[Tensor, " b"]]:
        """Returns probabilities and logits of shape ``(b, ways)``, and the familiarity of shape ``(b,)``.

        An image is like the classes if its familiarity is at least ``trust.known``.
        """
        return self.answer(self.learner.prepare(images))

    def answer(self, rows: Tensor) -> tuple[Float[Tensor, "b ways"], Float[Tensor, "b ways"], Float[Tensor, " b"]]:
        """Returns what :meth:`forward` does, from prepared images."""
        state = {name: self.get_buffer(f"state_{name}") for name in self.names}
        scores = self.learner.logits(state, rows.unsqueeze(0))[0]
        return (scores * self.scale).softmax(-1), scores, self.familiarity.score(rows)


class DeployedWithPoints(Deployed):
    """The same, with the features of each image as :class:`metarep.model.trust.familiarity.Familiarity` compares them.

    Args:
        model: see :class:`Deployed`.
    """

    def forward(self, images: UInt8[Tensor, "b c h w"]) -> tuple[Tensor, Tensor, Tensor, Float[Tensor, "b dim"]]:
        """Returns what :class:`Deployed` returns, and the spread and centred features of shape ``(b, dim)``.

        The mean of these points over the images of a class is a row of ``familiarity.prototypes``.
        """
        rows = self.learner.prepare(images)
        return *self.answer(rows), spread(rows) - self.familiarity.mean


def export_onnx(model: Model, path: Path, *, points: bool = False) -> None:
    """Writes an ONNX graph with the input ``images`` and the outputs ``probabilities``, ``scores`` and ``familiarity``.

    The input is uint8 of shape ``(b, c, h, w)``, for any ``b``. The metadata of the graph hold the names of the
    classes, the thresholds and the shape of the images, as JSON under ``metarep``. ``docs/your-own-images.md`` explains
    each field.

    Args:
        model: the model.
        path: the file to write.
        points: whether the graph also has the output ``points``; see :class:`DeployedWithPoints`.

    Raises:
        MetarepError: the model cannot be exported (see :class:`Deployed`), or the ONNX packages are not installed.

    >>> from metarep import Gallery
    >>> one = Gallery.empty().add(torch.eye(1), ["moth"], ["1.jpg"])
    >>> export_onnx(Model(None, {"name": "prototypes"}, one), Path("moths.onnx"))
    Traceback (most recent call last):
    metarep.errors.MetarepError: the model has fewer than two classes, and cannot be exported; add another class first
    """
    require_onnx()
    import onnx

    deployed, images = (DeployedWithPoints if points else Deployed)(model).eval(), _example(model)
    outputs = (*OUTPUTS, POINTS) if points else OUTPUTS
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        _write_onnx(deployed, images, partial, outputs)
        graph = onnx.load(str(partial))
        entry = graph.metadata_props.add()
        entry.key, entry.value = "metarep", json.dumps(export_facts(model))
        onnx.save(graph, str(partial))


def _write_onnx(deployed: Deployed, images: Tensor, path: Path, outputs: Sequence[str]) -> None:
    write_onnx(deployed, images, path, input_name="images", output_names=outputs)


def export_torch(model: Model, path: Path) -> None:
    """Writes a graph (``.pt2``) for ``torch.export.load``; ``metarep.json`` in it holds the names of the classes.

    Raises:
        MetarepError: the model cannot be exported; see :class:`Deployed`.

    >>> from metarep import Gallery
    >>> one = Gallery.empty().add(torch.eye(1), ["moth"], ["1.jpg"])
    >>> export_torch(Model(None, {"name": "prototypes"}, one), Path("moths.pt2"))
    Traceback (most recent call last):
    metarep.errors.MetarepError: the model has fewer than two classes, and cannot be exported; add another class first
    """
    deployed, images = Deployed(model).eval(), _example(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with quietly():
        shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
        program = torch.export.export(deployed, (images,), dynamic_shapes=shapes)
        content = io.BytesIO()  # not the file: torch ends the process if the disk is full
        torch.export.save(program, content, extra_files={"metarep.json": json.dumps(export_facts(model))})
    with replacing(path) as partial:
        partial.write_bytes(content.getvalue())


def _example(model: Model) -> UInt8[Tensor, "b c h w"]:
    """Returns black images of the encoder's size, to trace the graph with."""
    preprocess = model.learner.encoder.preprocess
    return torch.zeros(EXAMPLES, preprocess.channels, *preprocess.size, dtype=torch.uint8)


def export_facts(model: Model) -> dict[str, object]:
    """Returns what a program must know to use the graph: classes, input format and trust."""
    preprocess = model.learner.encoder.preprocess
    return {
        "classes": model.gallery.names,
        "size": preprocess.size,
        "channels": preprocess.channels,
        "layout": "NCHW, RGB or grey, 0 to 255",
        "stretch": STRETCH,
        "trust": model.trust.as_dict(),
    }
