"""Representation: an encoder, what it is called, and what it was trained to be deployed with."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from metarep.data.reading.depth import Depth
from metarep.encoders import BROUGHT, ENCODERS, Encoder, space_of
from metarep.encoders.onnx_writer import as_onnx
from metarep.encoders.output import Picked
from metarep.errors import MetarepError
from metarep.learners import Learner
from metarep.machine.files import write_tensors
from metarep.weights.checkpoint import Checkpoint

FORMAT = "encoder-1"


@dataclass(frozen=True)
class Representation:
    """An encoder, where it is from, and what it was trained to be deployed with.

    Args:
        encoder: in evaluation mode.
        name: what it was asked for as.
        checkpoint: the run it is from, where it is one of ours.
    """

    encoder: Encoder
    name: str
    checkpoint: Checkpoint | None = None

    @property
    def learner(self) -> Learner | None:
        """What was trained with the encoder, where that solves tasks of any number of classes."""
        learner = self.checkpoint.learner if self.checkpoint else None
        return learner if learner is not None and learner.ways is None else None

    @property
    def depth(self) -> Depth:
        """Black and white of pictures of more than 8 bits, as the run it is from has read its own."""
        return self.checkpoint.record.data.depth if self.checkpoint else Depth()

    @cached_property
    def digest(self) -> str:
        """Names the space that features lie in: two encoders of one digest give the same features."""
        return space_of(self.encoder)

    @property
    def own(self) -> bool:
        """Whether the body is a module of somebody's own, which no file of tensors can rebuild."""
        body = self.encoder.body
        kind = type(body.body if isinstance(body, Picked) else body)
        return kind is not (ENCODERS | BROUGHT).get(self.encoder.arch["name"])

    def portable(self) -> "Representation":
        """One that :meth:`save` can write: this one, or, of an own module, its body as an ONNX graph.

        Raises:
            MetarepError: the module cannot be written as a graph, or the graph gives other features.
        """
        if not self.own:
            return self
        return replace(self, encoder=as_onnx(self.encoder))

    def save(self, path: Path) -> None:
        """One file that ``load_representation`` reads, on a machine that has nothing else.

        Raises:
            MetarepError: the body is a module of somebody's own; :meth:`portable` makes one that can be written.
        """
        if self.own:
            raise MetarepError(
                f"{self.name} is a module of your own, which cannot be written without pickle; .portable() makes an "
                "ONNX graph of it, which can"
            )
        if self.checkpoint:
            run = self.checkpoint
            replace(run, record=replace(run.record, name=self.name)).save(path)
        else:
            header = {"format": FORMAT, "encoder": self.encoder.arch, "preprocess": asdict(self.encoder.preprocess)}
            write_tensors(path, dict(self.encoder.body.state_dict()), header | {"name": self.name})
