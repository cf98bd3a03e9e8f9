"""Checkpoint: one safetensors file holds weights, settings and what was seen. Nothing is ever pickled."""

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarep.encoders import BROUGHT, ENCODERS, Encoder, Preprocess, build_encoder
from metarep.errors import LeakageError, MetarepError, refuse_unknown_settings, unknown
from metarep.files import read_tensors, write_tensors
from metarep.labels import Labels
from metarep.learners import Learner
from metarep.methods import METHODS, Method

FORMAT = 1
LARGEST = 4096  # side of an image in pixels: more would fill the memory, and only a damaged header asks for it


@dataclass(frozen=True)
class Checkpoint:
    """A trained method, the settings that made it, and the classes it has seen.

    Args:
        method: with its trained weights, in evaluation mode.
        settings: as saved: ``method``, ``settings``, ``encoder``, ``train``, ``data``; and ``labels`` and ``init``
            where they are not ``true`` and random.
        seen: digests of the keys of all classes that training touched, in this run or one that it is based on.
        fitted: of those the ones that weights were fitted to; the others were validated on. None in files of
            metarep 0.1.0, which do not say.
    """

    method: Method
    settings: dict[str, Any]
    seen: frozenset[str]
    fitted: frozenset[str] | None = None

    @property
    def learner(self) -> Learner:
        return self.method.learner

    @property
    def labels(self) -> str:
        """What labels were read in training, by this run or by one it is based on.

        ``none``, ``instances``, ``clusters``, ``5-a-class``, or ``true`` for all.
        """
        return self.settings.get("labels", "true")

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
                fitted, labels.keys, labels.names, f"{split} were trained on, by this run or one it is based on", HOW
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
        trained = self.settings.get("data", {})
        alone = "init" not in self.settings and "clustered_by" not in trained
        if validation and alone and (trained.get("name"), trained.get("split")) == (data, "train"):
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
        refuse(self.seen, keys, names or keys, f"{split} were seen in training", HOW)


HOW = "an accuracy on them would not be a few-shot result. Evaluate on a split that was not trained on"


def refuse(seen: Set[str], keys: Sequence[str], names: Sequence[str], what: str, how: str) -> None:
    """Raise if any class of these keys is in ``seen``.

    Args:
        seen: digests of keys.
        keys, names: of the classes.
        what: was done with them, and of what they are.
        how: to go on.

    Raises:
        LeakageError: it names up to three of the classes, of those that share a key the first.
    """
    met = [row for row, key in enumerate(keys) if key_digest(key) in seen]
    if met:
        first: dict[str, str] = {}
        for row in met:
            first.setdefault(keys[row], names[row])
        shown = ", ".join([*list(first.values())[:3], *(["…"] if len(first) > 3 else [])])
        raise LeakageError(f"{len(met)} of the {len(keys)} classes of {what} ({shown}): {how}")


def digests(keys: Iterable[str]) -> frozenset[str]:
    """What a checkpoint keeps of the keys of classes."""
    return frozenset(map(key_digest, keys))


def key_digest(key: str) -> str:
    """What a checkpoint keeps of a class's key."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def build_method(name: str, encoder: Encoder, settings: dict[str, Any]) -> Method:
    """A method by name, with its own settings.

    Raises:
        MetarepError: an unknown method or setting, with the nearest name.
    """
    check_settings(name, settings)
    return METHODS[name](encoder, **settings)


def check_settings(name: str, settings: Iterable[str]) -> None:
    """Refuse a method or a setting that does not exist, before any data are loaded.

    Raises:
        MetarepError: an unknown method or setting, with the nearest name.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    refuse_unknown_settings(name, METHODS[name].__init__, settings)


def save_checkpoint(
    path: Path,
    method: Method,
    settings: dict[str, Any],
    seen: Iterable[str],
    fitted: Iterable[str] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all; for ``seen`` and ``fitted`` see :class:`Checkpoint`."""
    encoder = method.learner.encoder
    header = {
        **settings,
        "format": FORMAT,
        "encoder": encoder.arch,
        "preprocess": asdict(encoder.preprocess),
        "seen": sorted(seen),
        **({} if fitted is None else {"fitted": sorted(fitted)}),
    }
    if frozen := [name for name, weight in encoder.body.named_parameters() if not weight.requires_grad]:
        header["frozen"] = frozen  # or inner steps would move them at test time
    write_tensors(path, dict(method.state_dict()), header)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        MetarepError: no such file, a damaged one, or one from a newer version.
    """
    tensors, header = read_tensors(path)
    found = header.get("format")
    if found != FORMAT:
        raise MetarepError(f"{path} is not a metarep checkpoint of format {FORMAT}, but {found}")
    encoder = header.get("encoder")
    if isinstance(encoder, dict) and encoder.get("name") not in [*ENCODERS, *BROUGHT]:
        raise MetarepError(
            f"{path}: unknown encoder {encoder.get('name')!r}. If it is a module of your own, a file of tensors cannot "
            "rebuild it: make its Encoder and its method in Python, and load what read_tensors gives"
        )
    try:
        method = _rebuild(tensors, header)
        kept = {name: header[name] for name in ("seen", "fitted") if name == "seen" or name in header}
        for name, found in kept.items():
            if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
                raise TypeError(f"what it has {name} is not a list of digests")  # or leakage would pass unnoticed
        sets = {name: frozenset(found) for name, found in kept.items()}
        return Checkpoint(method.to(device).eval(), header, **sets)
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise MetarepError(f"{path} is damaged, or of a newer metarep: {reason}") from error


def _rebuild(tensors: dict[str, Tensor], header: dict[str, Any]) -> Method:
    """The method that a header describes, with its weights."""
    fields = header["preprocess"]
    preprocess = Preprocess(**{**fields, **{name: tuple(fields[name]) for name in ("size", "mean", "std")}})
    if not all(1 <= side <= LARGEST for side in preprocess.size):
        raise MetarepError(f"its images would have {' x '.join(map(str, preprocess.size))} px")

    def build() -> Method:
        encoder = build_encoder(**{**header["encoder"], "preprocess": preprocess})
        return build_method(header["method"], encoder, header["settings"])

    with torch.device("meta"):  # without any memory: a damaged header may ask for all there is
        shapes = {name: tuple(value.shape) for name, value in build().state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if shapes != found:
        name = next(name for name in shapes | found if shapes.get(name) != found.get(name))
        raise MetarepError(f"{name} should have the shape {shapes.get(name)}, and has {found.get(name)}")
    method = build()
    method.load_state_dict(tensors)
    for name in header.get("frozen", []):
        method.learner.encoder.body.get_parameter(name).requires_grad_(False)
    return method
