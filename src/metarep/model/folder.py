"""ModelFolder: a model on disk. Written whole or not at all; two writers wait for each other; nothing is pickled."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from metarep.data.copies.picture_hash import picture_hash
from metarep.data.reading.depth import Depth
from metarep.data.reading.photographs import LeftOut
from metarep.errors import Advice, Call, MetarepError, Slot
from metarep.machine.files import locked, making, read_tensors, write_tensors
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.repeats import first_of_each
from metarep.model.trust.trust import Trust
from metarep.weights.named import Representation, load_representation

FORMAT = "model-1"
GALLERY = "gallery.safetensors"
STATE = "state."  # before the names of what the learner made of the gallery
LARGEST = 20_000_000  # numbers of a state that is kept; larger ones are worked out anew
PARTS = ("encoder.safetensors", "images", ".lock")
Allow = Callable[[Gallery, Gallery], None]


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
        """A new model folder to be filled, put at ``path`` at the end; see :func:`metarep.machine.files.making`.

        Raises:
            MetarepError: there is something at ``path`` already, or another process is making it.
        """
        if model.representation is None:
            raise MetarepError("a model folder needs an encoder")
        learn = Call("ModelFolder.learn", "add", path, Slot("CLASS/"))
        more = [Advice("add to it with {learn}", learn=learn)] if (path / GALLERY).is_file() else []
        there = MetarepError(f"{path} is there already", advice=["choose another", *more])
        busy = MetarepError(f"another process is making {path}", advice=["wait until it has ended", "choose another"])
        with making(path.resolve(), GALLERY, PARTS, exists=there, busy=busy) as partial:
            representation = model.representation.portable()
            representation.save(partial / "encoder.safetensors")
            folder = cls(partial, representation)
            folder._write(model)
            yield folder
        folder.path = path

    @classmethod
    def open(cls, path: Path) -> "ModelFolder":
        """A model folder that is there."""
        if not (path / GALLERY).is_file():
            run = (path / "model.safetensors").exists()
            options = {"encoder": path} if run else {}
            fit = Call("ModelFolder.create", "fit", Slot("PHOTOS"), out=Slot("MODEL") if run else path, **options)
            what = "a run folder and not a model folder" if run else "not a model folder"
            raise MetarepError(f"{path} is {what}", advice=Advice("make a model with {fit}", fit=fit))
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
    def writing(self) -> Iterator[Callable[..., Model]]:
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
        depth: Depth | None = None,
        skip_bad: bool = False,
        left_out: LeftOut | None = None,
    ) -> list[int]:
        """Add images, and return their ids. Encoding, which takes time, is done before the folder is held.

        Args:
            images: see :func:`metarep.data.reading.photographs.read_images`.
            labels, items: of each, its class and what people call it.
            batch: images at a time.
            once: leave out a picture that its class has already. One that another class has is kept.
            depth: how to read these; what the model does not know of it yet, it remembers.
            skip_bad: leave out images that cannot be read.
            left_out: the same, and takes them.

        Warns:
            RepeatWarning: with ``once``, of each such picture.
            LeftOutWarning: of each image that is left out because it cannot be read.
        """
        left_out = left_out or (LeftOut() if skip_bad else None)
        read = list(self.model.read(images, batch=batch, depth=depth, left_out=left_out))
        if left_out:
            left_out.tell(len(labels))
            labels, items = (
                [each[i] for i in range(len(each)) if i not in left_out.errors] for each in (labels, items)
            )
        if not read:
            raise MetarepError("there are no images")
        rows, pixels = torch.cat([rows for _, rows in read]), [image for some, _ in read for image in some]
        labels = list(map(self.model.gallery.called, labels))
        return self.keep(pixels, rows, labels, items, once=once, depth=depth)

    def keep(
        self,
        pixels: Sequence[Tensor],
        rows: Tensor,
        labels: Sequence[str],
        items: Sequence[str],
        *,
        allow: Allow | None = None,
        depth: Depth | None = None,
        once: bool = False,
    ) -> list[int]:
        """Add images that are encoded already, and return their ids.

        Args:
            pixels: of each, ``c h w`` in uint8, as the encoder saw it.
            rows: of each, what the learner prepared of it.
            labels, items: of each, its class and what people call it.
            allow: given the gallery as it is and as it would be, it may raise, and nothing is changed.
            depth: how they were read.
            once: see :meth:`learn`.
        """
        with self.writing() as put:
            if once:  # here, or another process might add the same pictures meanwhile
                kept = first_of_each(self.model, self.image, pixels, rows, labels, items)
                rows, pixels = rows[kept], [pixels[i] for i in kept]
                labels, items = [labels[i] for i in kept], [items[i] for i in kept]
            if not len(rows):
                return []
            before = self.model.gallery
            gallery = before.add(rows, labels, items, picture_hash(torch.stack(list(pixels))))
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
            put(gallery, (depth or Depth()) | self.model.depth)
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

    def settle(self) -> Model:
        """Work out how far the model can be trusted, and keep it beside the gallery for whoever opens it next."""
        with self.writing():
            model = self.model
            if len(model.gallery.names) > 1:
                _ = model.trust, model.state
                self._write(model)
                self._model, self._stamp = model, self._now()
        return model

    @property
    def _gallery(self) -> Path:
        return self.path / GALLERY

    def _change(self, gallery: Gallery, depth: Depth | None = None) -> Model:
        before = self.model
        model = before.changed(gallery, depth)
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
            "depth": model.depth.as_dict(),
            "names": gallery.names,
            "items": gallery.items,
            "next_id": gallery.next_id,
        }
        before = self._now()[0] if self._gallery.exists() else 0
        tensors = {"rows": gallery.rows, "classes": gallery.classes, "ids": gallery.ids, "hashes": gallery.hashed}
        if "trust" in vars(model):  # it has been worked out
            header["trust"] = model.trust.as_dict()
            small = sum(part.numel() for part in model.state.values()) <= LARGEST
            tensors |= {STATE + name: part for name, part in model.state.items() if small}
        write_tensors(self._gallery, tensors, header)
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
            rows, classes, ids = (tensors[part] for part in ("rows", "classes", "ids"))
            gallery = Gallery(rows, classes, ids, items, names, header["next_id"], tensors.get("hashes"))
            if not len(rows) == len(classes) == len(ids) == len(items) == len(gallery.hashed):
                raise ValueError("its parts are not equally long")
            alarms, depth = header["false_alarms"], Depth.of(header.get("depth"))
            model = Model(self.representation, header["head"], gallery, false_alarms=alarms, depth=depth)
            state = {name[len(STATE) :]: part for name, part in tensors.items() if name.startswith(STATE)}
            return model.settled(Trust.of_dict(header["trust"]), state or None) if "trust" in header else model
        except (KeyError, TypeError, ValueError) as error:
            raise MetarepError(f"{self._gallery} is damaged, or of a newer metarep: {error}") from error

    def _draw(self, number: int, pixels: Tensor) -> None:
        path = self.image(number)
        path.parent.mkdir(exist_ok=True)
        array = pixels.permute(1, 2, 0).numpy()
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(path, compress_level=1)
