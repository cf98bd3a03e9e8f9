"""Checkpoint: one safetensors file holds weights, settings and what was seen. Nothing is ever pickled."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metarep.data.labels import Labels
from metarep.encoders import BROUGHT, ENCODERS, Preprocess, build_encoder
from metarep.errors import MetarepError
from metarep.learners import Learner, build_learner, described
from metarep.machine.files import read_tensors, write_tensors
from metarep.weights.deployed import learner_of
from metarep.weights.record import RunRecord
from metarep.weights.seen import digests, refuse

if TYPE_CHECKING:
    from metarep.methods import Method

FORMAT = 1
LARGEST = 4096  # side of an image in pixels: more would fill the memory, and only a damaged header asks for it
DEPLOYED = "learner."  # how the names of the learner's weights begin among those of its method


@dataclass(frozen=True)
class Checkpoint:
    """A trained learner, the record of its training, and the classes it has seen.

    Answering needs the learner alone. The method that trained it is built when :attr:`method` is asked for.

    Args:
        learner: with its trained weights, in evaluation mode.
        record: what the run is.
        seen: digests of the keys of all classes that training touched, in this run or one that it is based on.
        fitted: of those the ones that weights were fitted to; the others were validated on. None in files of
            metarep 0.1.0, which do not say.
        training: weights that only training needs, by their names in the method: projectors, queues, targets.
        trained: the method, where it is at hand.
    """

    learner: Learner
    record: RunRecord
    seen: frozenset[str]
    fitted: frozenset[str] | None = None
    training: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    trained: "Method | None" = field(default=None, repr=False)

    @classmethod
    def of(
        cls, method: "Method", record: RunRecord, seen: Iterable[str], fitted: Iterable[str] | None = None
    ) -> "Checkpoint":
        """The checkpoint of a method that has just been trained."""
        training = {name: value for name, value in method.state_dict().items() if not name.startswith(DEPLOYED)}
        known = None if fitted is None else frozenset(fitted)
        return cls(method.learner, record, frozenset(seen), known, training, method)

    @cached_property
    def method(self) -> "Method":
        """The method with its weights, on the learner's device and in evaluation mode.

        Raises:
            MetarepError: there is no such method, or these are not its weights.
        """
        if self.trained is not None:
            return self.trained
        from metarep.methods import build_method  # not above: answering a photograph needs no method

        method = build_method(self.record.method, self.learner.encoder, self.record.settings).to(self.learner.device)
        method.learner = self.learner
        try:
            method.load_state_dict(self.tensors)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise MetarepError(f"the weights are not those of the method {self.record.method}: {reason}") from error
        return method.eval()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All weights, by their names in the method."""
        own = {DEPLOYED + name: value for name, value in self.learner.state_dict().items()}
        return {**own, **self.training}

    @property
    def labels(self) -> str:
        """What labels were read in training, by this run or by one it is based on; see :class:`RunRecord`."""
        return self.record.labels

    def save(self, path: Path) -> None:
        """Write a checkpoint that :func:`load_checkpoint` reads, whole or not at all."""
        encoder = self.learner.encoder
        header = {
            **self.record.as_dict(),
            "format": FORMAT,
            "encoder": encoder.arch,
            "preprocess": asdict(encoder.preprocess),
            "seen": sorted(self.seen),
            **({} if self.fitted is None else {"fitted": sorted(self.fitted)}),
        }
        if about := described(self.learner):
            header["learner"] = about
        if frozen := [name for name, weight in encoder.body.named_parameters() if not weight.requires_grad]:
            header["frozen"] = frozen  # or inner steps would move them at test time
        write_tensors(path, self.tensors, header)

    def refuse_leak(self, labels: Labels, split: str, data: str, part: str) -> None:
        """Raise where an accuracy on these classes would not be one on new classes.

        Args:
            labels: of the classes.
            split: what they are classes of, for the error.
            data: the data set, as it was asked for.
            part: of the data set. To ``val`` classes no weights may have been fitted, by this run or by one that it is
                based on; of others nothing may have been seen.

        Raises:
            LeakageError: see :meth:`refuse_keys`.
        """
        if part != "val":
            self.refuse_seen(labels, split)
        else:
            fitted = self.fitted_of(labels, data)
            refuse(
                fitted,
                labels.keys,
                labels.names,
                f"{split} were trained on, by this run or one it is based on",
                WHY,
                ELSEWHERE,
            )

    def fitted_of(self, validation: Labels | None, data: str) -> frozenset[str]:
        """``fitted``, or what may have been where the file does not say.

        Then only a run that is based on no other and was trained on ``train`` of the same data is known not to have
        been fitted to its validation classes.

        Args:
            validation: classes of the part ``val`` of ``data``, if any are asked about.
            data: a data set.
        """
        if self.fitted is not None:
            return self.fitted
        own = self.record.data
        alone = not self.record.init and not own.clustered_by
        if validation and alone and (own.name, own.split) == (data, "train"):
            return self.seen - digests(validation.keys)
        return self.seen

    def refuse_seen(self, labels: Labels, split: str) -> None:
        """Raise if any class of ``labels`` was seen in training; see :meth:`refuse_keys`."""
        self.refuse_keys(labels.keys, split, labels.names)

    def refuse_keys(self, keys: Sequence[str], split: str, names: Sequence[str] | None = None) -> None:
        """Raise if any class of these keys was seen in training.

        Args:
            keys: of the classes.
            split: what they are classes of, for the error.
            names: what people call the classes; the keys if None.

        Raises:
            LeakageError: it names up to three of the classes, of those that share a key the first.
        """
        refuse(self.seen, keys, names or keys, f"{split} were seen in training", WHY, ELSEWHERE)


WHY = "an accuracy on them would not be a few-shot result"
ELSEWHERE = ("evaluate on a split that was not trained on",)


def save_checkpoint(
    path: Path, method: "Method", record: RunRecord, seen: Iterable[str], fitted: Iterable[str] | None = None
) -> None:
    """Write the checkpoint of a method, whole or not at all; for ``seen`` and ``fitted`` see :class:`Checkpoint`."""
    Checkpoint.of(method, record, seen, fitted).save(path)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        MetarepError: no such file, a damaged one, or one from a newer version.
    """
    tensors, header = read_tensors(path)
    version = header.get("format")
    if version != FORMAT:
        raise MetarepError(f"{path} is not a metarep checkpoint of format {FORMAT}, but {version}")
    encoder = header.get("encoder")
    if isinstance(encoder, dict) and encoder.get("name") not in [*ENCODERS, *BROUGHT]:
        raise MetarepError(
            f"{path}: unknown encoder {encoder.get('name')!r}. If it is a module of your own, a file of tensors cannot "
            "rebuild it: make its Encoder and its method in Python, and load what read_tensors gives"
        )
    try:
        record = RunRecord.read(header)
        learner = _rebuild(tensors, header, record)
        kept = {name: header[name] for name in ("seen", "fitted") if name == "seen" or name in header}
        for name, keys in kept.items():
            if not isinstance(keys, list) or not all(isinstance(each, str) for each in keys):
                raise TypeError(f"what it has {name} is not a list of digests")  # or leakage would pass unnoticed
        training = {name: value.to(device) for name, value in tensors.items() if not name.startswith(DEPLOYED)}
        fitted = frozenset(kept["fitted"]) if "fitted" in kept else None
        return Checkpoint(learner.to(device).eval(), record, frozenset(kept["seen"]), fitted, training)
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise MetarepError(f"{path} is damaged, or of a newer metarep: {reason}") from error


def _rebuild(tensors: dict[str, Tensor], header: dict[str, Any], record: RunRecord) -> Learner:
    """The learner that a header describes, with its weights."""
    preprocess = Preprocess.read(header["preprocess"])
    if not all(1 <= side <= LARGEST for side in preprocess.size):
        raise MetarepError(f"its images would have {' x '.join(map(str, preprocess.size))} px")
    about = header.get("learner") or learner_of(record.method, record.settings)

    def build() -> Learner:
        encoder = build_encoder(**{**header["encoder"], "preprocess": preprocess})
        if about:
            return build_learner(encoder=encoder, **about)
        from metarep.methods import build_method  # a learner that only its method can make

        return build_method(record.method, encoder, record.settings).learner

    with torch.device("meta"):  # without any memory: a damaged header may ask for all there is
        shapes = {name: tuple(value.shape) for name, value in build().state_dict().items()}
    own = {name.removeprefix(DEPLOYED): value for name, value in tensors.items() if name.startswith(DEPLOYED)}
    saved = {name: tuple(value.shape) for name, value in own.items()}
    if shapes != saved:
        name = next(name for name in shapes | saved if shapes.get(name) != saved.get(name))
        raise MetarepError(f"{name} should have the shape {shapes.get(name)}, and has {saved.get(name)}")
    learner = build()
    learner.load_state_dict(own)
    for name in header.get("frozen", []):
        learner.encoder.body.get_parameter(name).requires_grad_(False)
    return learner
