"""Exports encoder and classes as one graph, for programs without metarep."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from metarep.encoders.onnx_writer import require_onnx
from metarep.errors import MetarepError
from metarep.model.graph import input_facts, refuse_no_graph, write_graph, write_program
from metarep.model.model import Model
from metarep.model.multi_label.graph import OUTPUTS as LABEL_OUTPUTS
from metarep.model.multi_label.graph import DeployedLabels, label_facts
from metarep.model.multi_label.model import MultiLabelModel

OUTPUTS = ("probabilities", "scores", "familiarity")
POINTS = "points"  # a further output, for programs that learn classes of their own


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
        refuse_no_graph(model.learner, model.gallery.rows)
        self.learner, self.scale = model.learner, model.trust.scale
        self.familiarity, self.space = model.self_test.familiarity, model.point_space
        self.names = list(model.state)
        for name in self.names:
            self.register_buffer(f"state_{name}", model.state[name])

    def forward(
        self, images: UInt8[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b ways"], Float[Tensor, "b ways"], Float[Tensor, " b"]]:
        """Returns probabilities and logits of shape ``(b, ways)``, and the familiarity of shape ``(b,)``.

        An image is like the classes if its familiarity is at least ``trust.known``.
        """
        rows = self.learner.prepare(images)
        return self.answer(rows, self.points(rows))

    def points(self, rows: Tensor) -> Float[Tensor, "b points"]:
        """Returns the points of prepared images."""
        return self.space.points(rows)

    def answer(
        self, rows: Tensor, points: Tensor
    ) -> tuple[Float[Tensor, "b ways"], Float[Tensor, "b ways"], Float[Tensor, " b"]]:
        """Returns what :meth:`forward` does, from prepared images and their points."""
        state = {name: self.get_buffer(f"state_{name}") for name in self.names}
        scores = self.learner.logits(state, rows.unsqueeze(0))[0]
        return (scores * self.scale).softmax(-1), scores, self.familiarity.score(points)


class DeployedWithPoints(Deployed):
    """The same, with the point of each image, as :class:`metarep.model.trust.familiarity.Familiarity` compares them.

    Args:
        model: see :class:`Deployed`.
    """

    def forward(self, images: UInt8[Tensor, "b c h w"]) -> tuple[Tensor, Tensor, Tensor, Float[Tensor, "b points"]]:
        """Returns what :class:`Deployed` returns, and the centred points of shape ``(b, points)``.

        The mean of these points over the images of a class is a row of ``familiarity.prototypes``.
        """
        rows = self.learner.prepare(images)
        points = self.points(rows)
        return *self.answer(rows, points), points - self.familiarity.centre.mean


def export_onnx(model: Model | MultiLabelModel, path: Path, *, points: bool = False) -> None:
    """Writes an ONNX graph with the input ``images`` and the outputs ``probabilities``, ``scores`` and ``familiarity``.

    The input is uint8 of shape ``(b, c, h, w)``, for any ``b``. The metadata of the graph hold the names of the
    classes, the thresholds and the shape of the images, as JSON under ``metarep``. ``docs/your-own-images.md`` explains
    each field. A model of several labels an image has no familiarity, and probabilities that do not add up to 1.

    Args:
        model: the model.
        path: the file to write.
        points: whether the graph also has the output ``points``; see :class:`DeployedWithPoints`. It is for models of
            one class an image.

    Raises:
        MetarepError: the model cannot be exported (see :class:`Deployed`), or the ONNX packages are not installed.

    >>> import torch
    >>> from metarep import Gallery
    >>> one = Gallery.empty().add(torch.eye(1), ["moth"], ["1.jpg"])
    >>> export_onnx(Model(None, {"name": "prototypes"}, one), Path("moths.onnx"))
    Traceback (most recent call last):
    metarep.errors.MetarepError: the model has fewer than two classes, and cannot be exported; add another class first
    """
    require_onnx()
    deployed, outputs, facts = _deployed(model, points)
    write_graph(deployed, model.learner.encoder.preprocess, path, outputs, facts)


def export_torch(model: Model | MultiLabelModel, path: Path) -> None:
    """Writes a graph (``.pt2``) for ``torch.export.load``; ``metarep.json`` in it holds the names of the classes.

    Args:
        model, path: as for :func:`export_onnx`.

    Raises:
        MetarepError: the model cannot be exported; see :class:`Deployed`.

    >>> import torch
    >>> from metarep import Gallery
    >>> one = Gallery.empty().add(torch.eye(1), ["moth"], ["1.jpg"])
    >>> export_torch(Model(None, {"name": "prototypes"}, one), Path("moths.pt2"))
    Traceback (most recent call last):
    metarep.errors.MetarepError: the model has fewer than two classes, and cannot be exported; add another class first
    """
    deployed, _, facts = _deployed(model)
    write_program(deployed, model.learner.encoder.preprocess, path, facts)


def _deployed(
    model: Model | MultiLabelModel, points: bool = False
) -> tuple[nn.Module, Sequence[str], dict[str, object]]:
    """Returns a model as one module, the names of what it returns, and what a program must know of it."""
    if isinstance(model, MultiLabelModel):
        return DeployedLabels(model), LABEL_OUTPUTS, label_facts(model)
    if points:
        return DeployedWithPoints(model), (*OUTPUTS, POINTS), export_facts(model)
    return Deployed(model), OUTPUTS, export_facts(model)


def export_facts(model: Model) -> dict[str, object]:
    """Returns what a program must know to use the graph: classes, input format and trust."""
    return {
        "classes": model.gallery.names,
        **input_facts(model.learner.encoder.preprocess),
        "trust": model.trust.as_dict(),
    }
