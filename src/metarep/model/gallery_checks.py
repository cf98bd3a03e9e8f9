"""Checks of what the file of a model holds, which may be damaged or hostile."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarep.data.copies.picture_hash import LENGTH
from metarep.encoders import Encoder
from metarep.errors import MetarepError, one_line
from metarep.learners import build_learner
from metarep.machine.files import read_tensors
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.trust.trust import Trust
from metarep.model.tuning.verdict import Tuning, Verdict
from metarep.weights.representation import Representation
from metarep.weights.shapes import shapes_only

LARGEST = 20_000_000  # weights of a head


@contextmanager
def checked_file(
    path: Path, kind: str, representation: Representation
) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    """A context that gives the tensors and the header of a model's file; errors in it are those of a damaged file.

    Args:
        path: the file.
        kind: the format that it must have.
        representation: the encoder that its features come from.

    Raises:
        MetarepError: the file has another format or belongs to another encoder, its head is none, or what is done in
            the context finds a part that is missing or does not fit.
    """
    tensors, header = read_tensors(path)
    try:
        if header["format"] != kind:
            raise ValueError(f"its format is {header['format']}, not {kind}")
        if header["space"] != representation.digest:
            raise ValueError("encoder.safetensors is not the encoder that its features come from")
        check_head(header["head"], representation.encoder)
        yield tensors, header
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, MemoryError) as error:
        raise MetarepError(
            f"{path} is damaged, or of a newer metarep: {one_line(error)}; fit the model anew"
        ) from error


def checked_gallery(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Gallery:
    """The gallery in the tensors and the header of a file.

    Args:
        tensors: ``rows``, ``classes``, ``ids`` and perhaps ``hashes``.
        header: ``names``, ``items`` and ``next_id``, and perhaps ``groups``.

    Raises:
        KeyError, TypeError, ValueError: a part is missing, or does not fit the others.
    """
    names, items = (_texts(header, part) for part in ("names", "items"))
    groups = _texts(header, "groups") if "groups" in header else ()
    rows, classes, ids = (tensors[part] for part in ("rows", "classes", "ids"))
    gallery = Gallery(rows, classes, ids, items, names, header["next_id"], tensors.get("hashes"), groups)
    lengths = {len(items), classes.numel(), ids.numel(), len(gallery.hashed), len(gallery.grouped)}
    if not (rows.ndim and lengths == {len(rows)}):
        raise ValueError("its tensors and lists have different lengths")
    for part in ("classes", "ids"):
        if tensors[part].dtype != torch.int64 or tensors[part].ndim != 1:
            raise ValueError(f"its {part} are not whole numbers in a row")
    if gallery.hashed.dtype != torch.int8 or gallery.hashed.shape[1:] != (LENGTH,):
        raise ValueError(f"its hashes are {gallery.hashed.dtype} of shape {tuple(gallery.hashed.shape)}")
    if rows.is_floating_point() and not rows.isfinite().all():
        raise ValueError("its features are not all finite")
    if len(set(names)) < len(names):
        raise ValueError("two of its classes have the same name")
    if len(items) and (int(classes.min()) < 0 or int(classes.max()) >= len(names)):
        raise ValueError(f"an image is of a class that is none of its {len(names)}")
    largest = int(ids.max()) if len(items) else -1
    if len(items) and (int(ids.min()) < 0 or len(ids.unique()) < len(ids)):
        raise ValueError("two of its images have the same id, or an id is below 0")
    if type(gallery.next_id) is not int or not largest < gallery.next_id < 1 << 62:
        raise ValueError(f"its next id is {gallery.next_id!r}, and the largest in use is {largest}")
    return gallery


def checked_trust(fields: Mapping[str, Any]) -> Trust:
    """The trust in the header of a file.

    Args:
        fields: as :meth:`Trust.as_dict` returned them.

    Raises:
        KeyError, TypeError, AttributeError: the fields are not those of a trust.
    """
    for name in ("scale", "likely", "false_alarms", *(["known"] if fields["known"] is not None else [])):
        if name in fields and not isinstance(fields[name], int | float):
            raise TypeError(f"{name} is {fields[name]!r} and not a number")
    return Trust.of_dict(dict(fields))


def checked_verdict(saved: Mapping[str, Any]) -> Verdict:
    """The verdict in the header of a file.

    Args:
        saved: as :meth:`Verdict.as_dict` returned it.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: the values are not those of a verdict.
    """
    verdict = Verdict.read(dict(saved))
    if not 0 <= verdict.discount <= 100:  # a NaN fails too
        raise TypeError(f"its accuracy would be lowered by {verdict.discount} points")
    _ = str(verdict)
    return verdict


def checked_tuning(saved: Mapping[str, Any]) -> Tuning:
    """The tuning in the header of a file.

    Args:
        saved: as :meth:`Tuning.as_dict` returned it.

    Raises:
        KeyError, TypeError, AttributeError: the values are not those of a tuning.
    """
    tuning = replace(Tuning.read(dict(saved)), trust=checked_trust(saved["trust"]), names=_texts(saved, "names"))
    if len(tuning.trust.classes) not in (0, len(tuning.names)):
        raise TypeError(f"its tuning has figures of {len(tuning.trust.classes)} of {len(tuning.names)} classes")
    _ = str(tuning.verdict)
    return tuning


def check_head(head: object, encoder: Encoder) -> None:
    """Raise unless a head is a learner of this encoder that fits the memory. It is built on the device ``meta``.

    Args:
        head: the name and settings of the learner.
        encoder: the encoder.

    Raises:
        TypeError, ValueError: the head is not such a learner.
    """
    if not isinstance(head, dict) or not isinstance(head.get("name"), str):
        raise TypeError(f"its head is {str(head)[:60]!r} and not a name with settings")
    if head["name"] == "trained":
        return
    with shapes_only():
        weights = build_learner(encoder=encoder, **head).state_dict()
    if sum(weight.numel() for name, weight in weights.items() if not name.startswith("encoder.")) > LARGEST:
        raise ValueError(f"its head has more than {LARGEST:,} weights")


def check_model(model: Model) -> None:
    """Raise unless the features and the results in a file fit the encoder and the classes.

    A stored state is tried on one image.

    Args:
        model: a model whose gallery, and perhaps trust and state, come from a file.

    Raises:
        ValueError, RuntimeError, LookupError: they do not fit.
    """
    gallery, encoder = model.gallery, model.learner.encoder
    if not len(gallery):
        return
    shape, wanted = tuple(gallery.rows.shape[1:]), encoder.preprocess
    features = shape[-1:] == (encoder.dim,) and len(shape) <= 2 and gallery.rows.is_floating_point()  # of views, too
    if not features and shape != (wanted.channels, *wanted.size):
        raise ValueError(f"its rows have shape {shape}, and its encoder gives {encoder.dim} features")
    stored = vars(model)
    if "trust" in stored and len(model.trust.classes) not in (0, len(gallery.names)):
        raise ValueError(f"its trust is of {len(model.trust.classes)} classes and not of {len(gallery.names)}")
    if "state" in stored and len(gallery.names) > 1:
        scores = model.scores(gallery.rows[:1])
        if scores.shape != (1, len(gallery.names)):
            raise ValueError(f"its state gives scores of shape {tuple(scores.shape)} for an image")


def _texts(header: Mapping[str, Any], part: str) -> tuple[str, ...]:
    texts = header[part]
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise TypeError(f"its {part} are not a list of texts")
    return tuple(texts)
