"""ModelFolder: a model on disk. Written whole or not at all; two writers wait for each other; nothing is pickled."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from metarep.checkpoint import read_tensors, write_tensors
from metarep.errors import MetarepError
from metarep.files import locked
from metarep.gallery import Gallery
from metarep.model import Model
from metarep.pretrained import Representation, load_representation
from metarep.repeats import find_repeats

FORMAT = "model-1"
GALLERY = "gallery.safetensors"
Allow = Callable[[Gallery, Gallery], None]


class RepeatWarning(UserWarning):
    """A picture is given that the model has already."""


class ModelFolder:
    """A folder with ``encoder.safetensors``, which never changes; ``gallery.safetensors``, which is replaced by one
    rename whenever something is learned or forgotten; and ``images/ID.png``, what the encoder saw of each image.

    Args:
        path: the folder.
        representation: what ``encoder.safetensors`` holds.

    Raises:
        MetarepError: no model there, or a damaged one.
    """

    def __init__(self, path: Path, representation: Representation) -> None:
        self.path, self.representation = path, representation
        self._model: Model | None = None
        self._stamp: tuple[int, int] | None = None

    @classmethod
    def create(cls, path: Path, model: Model) -> "ModelFolder":
        """A new model folder.

        Raises:
            MetarepError: there is something at ``path`` already.
        """
        with cls.making(path, model) as folder:
            return folder

    @classmethod
    @contextmanager
    def making(cls, path: Path, model: Model) -> Iterator["ModelFolder"]:
        """A new model folder to be filled: it lies beside ``path``, or inside of it where that is an empty folder, and
        is put there at the end. After an error there is none; what ``kill -9`` leaves, the next one takes away.

        Raises:
            MetarepError: there is something at ``path`` already.
        """
        if path.exists() and (not path.is_dir() or {entry.name for entry in path.iterdir()} - {".part"}):
            raise MetarepError(f"{path} is there already; choose another, or add to it with metarep add {path} CLASS/")
        if model.representation is None:
            raise MetarepError("a model folder needs an encoder")
        place = path.resolve()
        empty = place.is_dir()  # it may be a disk of its own, or lie where nothing else can be written
        partial = place / ".part" if empty else place.with_name(f".{place.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            model.representation.save(partial / "encoder.safetensors")
            folder = cls(partial, model.representation)
            folder._write(model)
            yield folder
            if empty:
                entries = sorted(partial.iterdir(), key=lambda entry: entry.name == GALLERY)  # with it, it is a model
                for entry in entries:
                    entry.rename(place / entry.name)
            else:
                partial.rename(place)
            folder.path = path
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @classmethod
    def open(cls, path: Path) -> "ModelFolder":
        """A model folder that is there."""
        if not (path / GALLERY).is_file():
            hint = "a run folder: fit a model with --encoder" if (path / "model.safetensors").exists() else "no model"
            raise MetarepError(f"{path} is {hint}; metarep fit PHOTOS --out {path} makes one")
        if not (path / "encoder.safetensors").is_file():
            raise MetarepError(f"{path} has lost its encoder.safetensors; fit it anew")
        folder = cls(path, load_representation(path / "encoder.safetensors"))
        _ = folder.model
        return folder

    @property
    def model(self) -> Model:
        """The model as it is on disk now, whoever wrote it."""
        stamp = self._now()
        model = self._model
        if model is None or stamp != self._stamp:
            model = self._read()
            self._model, self._stamp = model, stamp  # in this order: a thread between the two reads once more
        return model

    @contextmanager
    def writing(self) -> Iterator[Callable[[Gallery], Model]]:
        """Hold the folder while changing it: yields a function that puts another gallery in place.

        Take ``folder.model`` anew inside: another process may have written in between.
        """
        with locked(self.path / ".lock"):
            yield self._change

    def learn(
        self,
        images: Any,  # noqa: ANN401 - whatever people have
        labels: Sequence[str],
        items: Sequence[str],
        *,
        batch: int = 64,
        once: bool = False,
    ) -> list[int]:
        """Add images, and return their ids. Encoding, which takes time, is done before the folder is held.

        Args:
            images: see :func:`metarep.photographs.read_images`.
            labels, items: of each, its class and what people call it.
            batch: images at a time.
            once: leave out a picture that its class has already. One that another class has is kept.

        Warns:
            RepeatWarning: with ``once``, of each such picture.
        """
        read = list(self.model.read(images, batch=batch))
        if not read:
            raise MetarepError("there are no images")
        rows, pixels = torch.cat([rows for _, rows in read]), [image for some, _ in read for image in some]
        if once:
            kept = self._first(pixels, rows, labels, items)
            rows, pixels = rows[kept], [pixels[i] for i in kept]
            labels, items = [labels[i] for i in kept], [items[i] for i in kept]
        return self.keep(pixels, rows, labels, items) if len(rows) else []

    def keep(
        self,
        pixels: Sequence[Tensor],
        rows: Tensor,
        labels: Sequence[str],
        items: Sequence[str],
        *,
        allow: Allow | None = None,
    ) -> list[int]:
        """Add images that are encoded already, and return their ids.

        Args:
            pixels: of each, ``c h w`` in uint8, as the encoder saw it.
            rows: of each, what the learner prepared of it.
            labels, items: of each, its class and what people call it.
            allow: given the gallery as it is and as it would be, it may raise, and nothing is changed.
        """
        with self.writing() as put:
            before = self.model.gallery
            gallery = before.add(rows, labels, items)
            if allow:
                allow(before, gallery)
            ids = gallery.ids[-len(rows) :].tolist()
            try:
                for number, image in zip(ids, pixels, strict=True):
                    self._draw(number, image)
            except BaseException:
                for number in ids:
                    self.image(number).unlink(missing_ok=True)
                raise
            put(gallery)
        return ids

    def change(self, edit: Callable[[Gallery], Gallery], *, allow: Allow | None = None) -> None:
        """Put what ``edit`` makes of the gallery in its place; ``allow`` as for :meth:`keep`."""
        with self.writing() as put:
            before = self.model.gallery
            gallery = edit(before)
            if allow:
                allow(before, gallery)
            put(gallery)

    def forget(self, ids: Iterable[int] = (), label: str | None = None) -> None:
        """Remove images, or a whole class."""
        self.change(
            lambda gallery: gallery.without(ids) if label is None else gallery.without(ids).without_class(label)
        )

    def rename(self, old: str, new: str) -> None:
        """Call a class otherwise; one that is there already takes its images."""
        self.change(lambda gallery: gallery.renamed(old, new))

    def move(self, number: int, label: str) -> None:
        """Put an image into another class."""
        self.change(lambda gallery: gallery.moved(number, label))

    def image(self, number: int) -> Path:
        """What the encoder saw of an image, as a file; it may be missing."""
        return self.path / "images" / f"{number}.png"

    def _first(self, pixels: Sequence[Tensor], rows: Tensor, labels: Sequence[str], items: Sequence[str]) -> list[int]:
        """Which of these images stay where each class has a picture once."""
        model, kept = self.model, list[int]()
        gallery = model.gallery
        known = [self.image(number) for number in gallery.ids.tolist()]
        classes = [gallery.names[place] for place in gallery.classes.tolist()] + list(labels)
        names = [*gallery.items, *items]
        repeats = find_repeats(pixels, model._features(rows), known, model.features if len(gallery) else rows[:0])
        for row, other in enumerate(repeats):
            if other is None:
                kept.append(row)
            elif classes[other] == labels[row]:
                warnings.warn(f"left out: {items[row]} is the same picture as {names[other]}", RepeatWarning, 3)
            else:
                kept.append(row)
                text = f"{items[row]} in {labels[row]} is the same picture as {names[other]} in {classes[other]}"
                warnings.warn(text, RepeatWarning, stacklevel=3)
        return kept

    @property
    def _gallery(self) -> Path:
        return self.path / GALLERY

    def _change(self, gallery: Gallery) -> Model:
        before = self.model
        model = before.changed(gallery)
        self._write(model)
        self._model, self._stamp = model, self._now()
        (self.path / "confusion.png").unlink(missing_ok=True)  # of the images as they were
        for number in set(before.gallery.ids.tolist()) - set(gallery.ids.tolist()):
            self.image(number).unlink(missing_ok=True)  # only now: a reader of the old gallery may still ask for it
        return model

    def _write(self, model: Model) -> None:
        gallery = model.gallery
        header = {
            "format": FORMAT,
            "space": self.representation.digest,
            "head": model.head,
            "false_alarms": model.false_alarms,
            "names": gallery.names,
            "items": gallery.items,
            "next_id": gallery.next_id,
        }
        before = self._now()[0] if self._gallery.exists() else 0
        write_tensors(self._gallery, {"rows": gallery.rows, "classes": gallery.classes, "ids": gallery.ids}, header)
        if self._now()[0] <= before:  # clocks of files tick every few milliseconds, and every state needs its own stamp
            os.utime(self._gallery, ns=(before + 1, before + 1))

    def _now(self) -> tuple[int, int]:
        status = self._gallery.stat()
        return status.st_mtime_ns, status.st_ino

    def _read(self) -> Model:
        tensors, header = read_tensors(self._gallery)
        try:
            if header["format"] != FORMAT:
                raise ValueError(f"its format is {header['format']}, not {FORMAT}")
            if header["space"] != self.representation.digest:
                raise ValueError("encoder.safetensors is not the encoder that its features come from")
            names, items = tuple(header["names"]), tuple(header["items"])
            gallery = Gallery(tensors["rows"], tensors["classes"], tensors["ids"], items, names, header["next_id"])
            if not len(gallery.rows) == len(gallery.classes) == len(gallery.ids) == len(items):
                raise ValueError("its parts are not equally long")
            return Model(self.representation, header["head"], gallery, false_alarms=header["false_alarms"])
        except (KeyError, TypeError, ValueError) as error:
            raise MetarepError(f"{self._gallery} is damaged, or of a newer metarep: {error}") from error

    def _draw(self, number: int, pixels: Tensor) -> None:
        path = self.image(number)
        path.parent.mkdir(exist_ok=True)
        array = pixels.permute(1, 2, 0).numpy()
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(path, compress_level=1)


def summary(model: Model) -> dict[str, Any]:
    """What a model is and how far it can be trusted, as JSON holds it."""
    gallery, trust = model.gallery, model.trust
    return {
        "classes": dict(zip(gallery.names, gallery.counts.tolist(), strict=True)),
        "images": len(gallery),
        "encoder": model.representation.name if model.representation else None,
        "size": list(model.learner.encoder.preprocess.size),
        "head": model.head,
        "trust": json.loads(json.dumps(trust.as_dict())),
        "suspects": [
            {
                "id": int(gallery.ids[each.row]),
                "item": gallery.items[each.row],
                "label": gallery.names[int(gallery.classes[each.row])],
                "likelier": gallery.names[each.likelier],
                "probability": round(each.probability, 4),
            }
            for each in model.suspects
        ],
    }
