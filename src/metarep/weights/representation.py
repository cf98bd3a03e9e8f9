"""Representation: an encoder with its name and the run that trained it."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from metarep.data.reading.depth import Depth
from metarep.encoders import BROUGHT, ENCODERS, Encoder, space_of
from metarep.encoders.kept import written_kept
from metarep.encoders.onnx_writer import as_onnx
from metarep.encoders.output import Picked
from metarep.errors import MetarepError
from metarep.learners import Learner
from metarep.machine.files import write_tensors
from metarep.weights.checkpoint import Checkpoint

FORMAT = "encoder-1"


@dataclass(frozen=True)
class Representation:
    """An encoder with its name and the run that trained it.

    Args:
        encoder: the encoder, in evaluation mode.
        name: the name that it was loaded by.
        checkpoint: the run that trained it; None for a third-party encoder.
        layout: what was recognised in a file of a published network; empty for others.

    >>> from metarep import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,)), width=4)
    >>> representation = Representation(encoder, "small")
    >>> representation.own, representation.learner, len(representation.digest) > 8
    (False, None, True)
    """

    encoder: Encoder
    name: str
    checkpoint: Checkpoint | None = None
    layout: str = ""

    @property
    def learner(self) -> Learner | None:
        """The learner that was trained with the encoder; None if there is none or its number of classes is fixed."""
        learner = self.checkpoint.learner if self.checkpoint else None
        return learner if learner is not None and learner.ways is None else None

    @property
    def depth(self) -> Depth:
        """The values of black and white in images with more than 8 bits, as in the images of its training."""
        return self.checkpoint.record.data.depth if self.checkpoint else Depth()

    @cached_property
    def digest(self) -> str:
        """A digest of the feature space: two encoders with the same digest give the same features."""
        return space_of(self.encoder)

    @property
    def own(self) -> bool:
        """Whether the body is a module of the user's own, which cannot be rebuilt from a file of tensors."""
        body = self.encoder.body
        kind = type(body.body if isinstance(body, Picked) else body)
        return kind is not (ENCODERS | BROUGHT).get(self.encoder.arch["name"])

    def portable(self) -> "Representation":
        """A representation that :meth:`save` can write. A module of the user's own becomes an ONNX graph.

        Raises:
            MetarepError: the module cannot be exported to ONNX, or the graph gives other features than the module.
        """
        if not self.own:
            return self
        return replace(self, encoder=as_onnx(self.encoder))

    def save(self, path: Path) -> None:
        """Write one file that ``load_representation`` reads. It holds everything that is needed.

        Args:
            path: a ``.safetensors`` file.

        Raises:
            MetarepError: the body is a module of the user's own; :meth:`portable` makes one that can be written.
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
            if self.encoder.feature_means is not None:
                header["feature_means"] = self.encoder.feature_means.tolist()
            tensors = dict(self.encoder.body.state_dict()) | written_kept(self.encoder)
            write_tensors(path, tensors, header | {"name": self.name})
