"""Graphs of models: an encoder and its answer as one ONNX graph, or as a program of torch.export, with what to know."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from metarep.data.reading.photographs import STRETCH
from metarep.encoders.onnx import OnnxBody
from metarep.encoders.onnx_writer import quietly, require_onnx, write_onnx
from metarep.encoders.preprocess import Preprocess
from metarep.errors import Advice, MetarepError
from metarep.learners import Learner
from metarep.machine.files import replacing

EXAMPLES = 2  # images in the batch that is traced; the graph takes a batch of any size


def refuse_no_graph(learner: Learner, rows: Tensor) -> None:
    """Raise if a learner and its encoder cannot be one graph.

    Args:
        learner: the learner.
        rows: the prepared rows of the images that the model has learned.

    Raises:
        MetarepError: the learner adapts the encoder or encodes copies of an image, or the encoder is an ONNX graph.
    """
    if rows.ndim != 2 or learner.of_copies:
        why = "encodes copies of an image" if learner.of_copies else "adapts the encoder to the classes"
        raise MetarepError(
            f"the learner {learner.called!r} {why}, so it cannot be exported as one graph",
            advice=Advice("fit with {learner} or linear", learner="prototypes"),
        )
    if isinstance(learner.encoder.body, OnnxBody):
        raise MetarepError(
            "the encoder is an ONNX graph, which torch cannot export anew; fit with the network it was made from"
        )


def write_graph(
    deployed: nn.Module, preprocess: Preprocess, path: Path, outputs: Sequence[str], facts: Mapping[str, object]
) -> None:
    """Write an ONNX graph with the input ``images``, whole or not at all.

    Args:
        deployed: maps uint8 images of shape ``(b, c, h, w)`` to the outputs.
        preprocess: how images are prepared; it gives ``c``, ``h`` and ``w``.
        path: the file to write.
        outputs: the names of the outputs.
        facts: what the metadata of the graph hold, as JSON under ``metarep``.

    Raises:
        MetarepError: the ONNX packages are not installed, or the file cannot be written.
    """
    require_onnx()
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        write_onnx(deployed.eval(), _example(preprocess), partial, input_name="images", output_names=outputs)
        graph = onnx.load(str(partial))
        entry = graph.metadata_props.add()
        entry.key, entry.value = "metarep", json.dumps(facts)
        onnx.save(graph, str(partial))


def write_program(deployed: nn.Module, preprocess: Preprocess, path: Path, facts: Mapping[str, object]) -> None:
    """Write a program (``.pt2``) for ``torch.export.load``, whose ``metarep.json`` holds ``facts``.

    Args:
        deployed, preprocess, path, facts: as for :func:`write_graph`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with quietly():
        shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
        program = torch.export.export(deployed.eval(), (_example(preprocess),), dynamic_shapes=shapes)
        content = io.BytesIO()  # not the file: torch ends the process if the disk is full
        torch.export.save(program, content, extra_files={"metarep.json": json.dumps(facts)})
    with replacing(path) as partial:
        partial.write_bytes(content.getvalue())


def input_facts(preprocess: Preprocess) -> dict[str, object]:
    """Return what a program must know to prepare an image."""
    return {
        "size": preprocess.size,
        "channels": preprocess.channels,
        "layout": "NCHW, RGB or grey, 0 to 255",
        "stretch": STRETCH,
    }


def _example(preprocess: Preprocess) -> UInt8[Tensor, "b c h w"]:
    """Return black images of the encoder's size, to trace the graph with."""
    return torch.zeros(EXAMPLES, preprocess.channels, *preprocess.size, dtype=torch.uint8)
