"""Checkpoint: weights, settings and the classes seen in training, in one safetensors file without pickle."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metarep.data.labels import Labels
from metarep.encoders import BROUGHT, ENCODERS, Preprocess
from metarep.encoders.feature_means import read_feature_means
from metarep.encoders.kept import KEPT, read_kept, written_kept
from metarep.errors import MetarepError
from metarep.learners import Learner, build_learner, described
from metarep.machine.files import read_tensors, write_tensors
from metarep.weights.deployed import learner_of
from metarep.weights.rebuild import damaged, encoder_of, rebuild
from metarep.weights.record import RunRecord
from metarep.weights.seen import digests, refuse

if TYPE_CHECKING:
    from metarep.methods import Method

FORMAT = 1
DEPLOYED = "learner."  # prefix of the learner's weights among the names of the method's weights


@dataclass(frozen=True)
class Checkpoint:
    """A trained learner, the record of its training, and the classes it has seen.

    Predictions need the learner alone. The method that trained it is built when :attr:`method` is read.

    Args:
        learner: the learner with its trained weights, in evaluation mode.
        record: the record of the run.
        seen: digests of the keys of all classes that training touched, in this run or in one that it is based on.
        fitted: digests of the classes that weights were fitted to; the others in ``seen`` were for validation. None in
            files of metarep 0.1.0, which do not have them.
        training: weights that only training needs, by their names in the method: projectors, queues, target networks.
        trained: the method, if it is already in memory.

    >>> import tempfile
    >>> from metarep import ProtoNet, build_encoder
    >>> method = ProtoNet(build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,)), width=4))
    >>> letters, file = Labels.of(["a", "b"]), Path(tempfile.mkdtemp(), "model.safetensors")
    >>> Checkpoint.of(method, RunRecord("protonet"), seen=digests(letters.keys)).save(file)
    >>> load_checkpoint(file).refuse_seen(Labels.of(["b", "c"]), "letters/test")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    metarep.errors.LeakageError: 1 of the 2 classes of letters/test were seen in training (b): ...
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
        """Make a checkpoint of a method in memory.

        Args:
            method: the trained method.
            record: the record of the run.
            seen, fitted: see :class:`Checkpoint`.
        """
        training = {name: value for name, value in method.state_dict().items() if not name.startswith(DEPLOYED)}
        known = None if fitted is None else frozenset(fitted)
        return cls(method.learner, record, frozenset(seen), known, training, method)

    @cached_property
    def method(self) -> "Method":
        """The method with its weights, on the learner's device and in evaluation mode.

        Raises:
            MetarepError: there is no method of this name, or the weights are those of another method.
        """
        if self.trained is not None:
            return self.trained
        from metarep.methods import build_method  # imported here because predictions do not need it

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
        """The labels that this run, or one that it is based on, read in training; see :class:`RunRecord`."""
        return self.record.labels

    def save(self, path: Path) -> None:
        """Write a file that :func:`load_checkpoint` reads. It replaces an older file only when it is complete.

        Args:
            path: a ``.safetensors`` file.
        """
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
        if encoder.feature_means is not None:  # in the header, so that earlier versions read the file too
            header["feature_means"] = encoder.feature_means.tolist()
        if frozen := [name for name, weight in encoder.body.named_parameters() if not weight.requires_grad]:
            header["frozen"] = frozen  # otherwise inner steps would change them at test time
        write_tensors(path, self.tensors | written_kept(encoder), header)

    def refuse_leak(self, labels: Labels, split: str, data: str, part: str) -> None:
        """Raise if an accuracy on these classes would not be one on new classes.

        Args:
            labels: the labels of the classes.
            split: the name of their split, for the message.
            data: the data set, as ``name`` or ``name:argument``.
            part: the part of the data set. Weights must not be fitted to classes of ``val``, by this run or by one that
                it is based on. Classes of other parts must not be seen at all.

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
        """Digests of the classes that weights were or may have been fitted to.

        They are ``fitted`` if the file has it. Otherwise they are all classes ``seen``, without the validation classes
        if it is certain that none was fitted: the run was trained on ``train`` of the same data, from random weights
        and without clusters.

        Args:
            validation: labels of the part ``val`` of ``data``; None without validation.
            data: a data set, as ``name`` or ``name:argument``.
        """
        if self.fitted is not None:
            return self.fitted
        own = self.record.data
        alone = not self.record.init and not own.clustered_by
        if validation and alone and (own.name, own.split) == (data, "train"):
            return self.seen - digests(validation.keys)
        return self.seen

    def refuse_seen(self, labels: Labels, split: str) -> None:
        """Raise if any class of ``labels`` was seen in training.

        Args:
            labels: the labels of the classes.
            split: the name of their split, for the message.

        Raises:
            LeakageError: see :meth:`refuse_keys`.
        """
        self.refuse_keys(labels.keys, split, labels.names)

    def refuse_keys(self, keys: Sequence[str], split: str, names: Sequence[str] | None = None) -> None:
        """Raise if a class with one of these keys was seen in training.

        Args:
            keys: the keys of the classes.
            split: the name of their split, for the message.
            names: the names of the classes, for the message; None for the keys.

        Raises:
            LeakageError: a class was seen. The message names up to three classes with different keys.
        """
        refuse(self.seen, keys, names or keys, f"{split} were seen in training", WHY, ELSEWHERE)


WHY = "an accuracy on them would not be a few-shot result"
ELSEWHERE = ("evaluate on a split that was not trained on",)


def save_checkpoint(
    path: Path, method: "Method", record: RunRecord, seen: Iterable[str], fitted: Iterable[str] | None = None
) -> None:
    """Write the checkpoint of a method. It replaces an older file only when it is complete.

    Args:
        path: a ``.safetensors`` file.
        method, record, seen, fitted: see :meth:`Checkpoint.of`.
    """
    Checkpoint.of(method, record, seen, fitted).save(path)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint that :func:`save_checkpoint` wrote.

    Args:
        path: a ``.safetensors`` file.
        device: where to put the weights.

    Raises:
        MetarepError: the file does not exist, is damaged, or was written by a newer version.
    """
    tensors, header = read_tensors(path)
    version = header.get("format")
    if version != FORMAT:
        raise MetarepError(f"{path} is not a metarep checkpoint of format {FORMAT}; its format is {version}")
    encoder = header.get("encoder")
    if isinstance(encoder, dict) and encoder.get("name") not in [*ENCODERS, *BROUGHT]:
        raise MetarepError(
            f"{path}: unknown encoder {encoder.get('name')!r}. If it is a module of your own, a file of tensors cannot "
            "rebuild it: make its Encoder and its method in Python, and load the tensors that read_tensors returns"
        )
    _refuse_unknown_method(path, header)
    with damaged(path):
        record = RunRecord.read(header)
        learner = _rebuild(tensors, header, record)
        kept = {name: header[name] for name in ("seen", "fitted") if name == "seen" or name in header}
        for name, keys in kept.items():
            if not isinstance(keys, list) or not all(isinstance(each, str) for each in keys):
                raise TypeError(f"its entry {name!r} is not a list of digests")  # otherwise leakage would go unnoticed
        others = {name: value for name, value in tensors.items() if not name.startswith(DEPLOYED) and name not in KEPT}
        training = {name: value.to(device) for name, value in others.items()}
        fitted = frozenset(kept["fitted"]) if "fitted" in kept else None
        return Checkpoint(learner.to(device).eval(), record, frozenset(kept["seen"]), fitted, training)


def _refuse_unknown_method(path: Path, header: dict[str, Any]) -> None:
    """Raise if only the method can make the learner, and nobody has registered it."""
    name, settings = header.get("method"), header.get("settings")
    if (
        not isinstance(name, str)
        or not isinstance(settings, dict)
        or header.get("learner")
        or learner_of(name, settings)
    ):
        return
    from metarep.methods import METHODS

    if name not in METHODS:
        raise MetarepError(
            f"{path}: unknown method {name!r}. If it is a method of your own, register its class before you load it: "
            f"metarep.METHODS[{name!r}] = YourMethod"
        )


def _rebuild(tensors: dict[str, Tensor], header: dict[str, Any], record: RunRecord) -> Learner:
    """Build the learner that a header describes, and load its weights."""
    preprocess = Preprocess.read(header["preprocess"])
    about = header.get("learner") or learner_of(record.method, record.settings)

    def build() -> Learner:
        encoder = encoder_of(header["encoder"], preprocess)
        encoder.feature_means = read_feature_means(header.get("feature_means"), encoder.dim)
        read_kept(tensors, encoder)
        if about:
            return build_learner(encoder=encoder, **about)
        from metarep.methods import build_method  # only the method can make this learner

        return build_method(record.method, encoder, record.settings).learner

    own = {name.removeprefix(DEPLOYED): value for name, value in tensors.items() if name.startswith(DEPLOYED)}
    learner = rebuild(build, own)
    for name in header.get("frozen", []):
        learner.encoder.body.get_parameter(name).requires_grad_(False)
    learner.merge_updates()
    return learner
