"""ModelFolder: a model on disk. A write is atomic, two writers wait for each other, and nothing is pickled."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import deprecated

from metarep.data.copies.picture_hash import picture_hash
from metarep.data.drawing.png import write_png
from metarep.data.reading.depth import Depth
from metarep.data.reading.photographs import LeftOut
from metarep.errors import Advice, Call, MetarepError, Slot, counted
from metarep.model.card import model_card
from metarep.model.folder_kind import refuse_other
from metarep.model.gallery import Gallery
from metarep.model.gallery_file import read_gallery, write_gallery
from metarep.model.hub_copy import refuse_copy
from metarep.model.model import Model
from metarep.model.repeats import first_of_each
from metarep.model.store import ModelStore
from metarep.weights.hub.contents import GALLERY

Allow = Callable[[Gallery, Gallery], None]


class ModelFolder(ModelStore[Model]):
    """A model in a folder, which several processes may change.

    It holds ``encoder.safetensors``, which never changes; ``gallery.safetensors``, which one rename replaces whenever
    the model learns or forgets; ``images/ID.png``, each image as the encoder saw it; and ``README.md``, its card.

    Args:
        path: the folder.
        representation: the encoder of ``encoder.safetensors``.
        origin: ``hf:USER/NAME@COMMIT`` of a model on the Hub, which cannot be changed; empty for others.

    >>> import tempfile
    >>> from metarep import Preprocess, build_encoder
    >>> stripes = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    >>> stripes[0, :, ::4], stripes[1, :, :, ::4] = 255, 255  # rows, and columns
    >>> encoder = build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,)), width=4)
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = ModelFolder.create(Path(parent) / "stripes", Model(encoder, {"name": "prototypes"}))
    ...     ids = folder.learn(stripes.numpy(), ["rows", "columns"], ["1.png", "2.png"])
    ...     folder.rename("rows", "lines")
    ...     ids, folder.model.gallery.names, folder.model.gallery.counts.tolist()
    ([0, 1], ('lines', 'columns'), [1, 1])
    """

    FILE = GALLERY
    PARTS = (*ModelStore.PARTS, "images")

    @classmethod
    def create(cls, path: Path, model: Model) -> "ModelFolder":
        """Writes ``model`` to a new model folder at ``path``, and returns the folder.

        Raises:
            MetarepError: ``path`` exists already, another process is making it, or the model has no encoder.
        """
        with cls.making(path, model) as folder:
            return folder

    @classmethod
    @contextmanager
    def making(cls, path: Path, model: Model) -> Iterator["ModelFolder"]:
        """Yields a new model folder, which moves to ``path`` at the end; see :func:`metarep.machine.files.making`.

        Raises:
            MetarepError: as for :meth:`create`.
        """
        learn = Call("ModelFolder.learn", "add", path, Slot("CLASS/"))
        more = [Advice("add to it with {learn}", learn=learn)] if (path / GALLERY).is_file() else []
        with cls._making(path, model, model.representation, more) as folder:
            yield folder

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
        groups: Sequence[str] | None = None,
    ) -> list[int]:
        """Encodes images, adds them, and returns their ids. The folder is locked only after encoding, which takes time.

        Args:
            images: see :func:`metarep.data.reading.photographs.read_images`.
            labels, items: the class name of each image, and the name that people use for it, mostly its path.
            batch: the number of images that are encoded at a time.
            once: whether to leave out a picture that its class has already. One that another class has is kept.
            depth: black and white of these images, if they have more than 8 bits. The model remembers it.
            skip_bad: whether to leave out images that cannot be read.
            left_out: collects the images that cannot be read; if it is given, they are left out.
            groups: what each image shows, such as one specimen; see :class:`metarep.model.gallery.Gallery`.

        Raises:
            MetarepError: an image cannot be read, or none is left.

        Warns:
            RepeatWarning: a picture is left out, or another class has it too; only with ``once``.
            LeftOutWarning: an image is left out because it cannot be read.
        """
        refuse_copy(self.origin)  # now, and not only after the images are encoded
        left_out = left_out or (LeftOut() if skip_bad else None)
        groups = [""] * len(items) if groups is None else groups
        read = list(self.model.read(images, batch=batch, depth=depth, left_out=left_out))
        if left_out:
            left_out.tell(len(labels))
            labels, items, groups = (
                [each[i] for i in range(len(each)) if i not in left_out.errors] for each in (labels, items, groups)
            )
        if not read:
            what = (
                f"none of the {counted(len(left_out.errors), 'image')} can be read" if left_out else "no image is given"
            )
            raise MetarepError(f"{what}; give at least one that can be read")
        rows, pixels = torch.cat([rows for _, rows in read]), [image for some, _ in read for image in some]
        labels = list(map(self.model.gallery.called, labels))
        return self.keep(pixels, rows, labels, items, once=once, depth=depth, groups=groups)

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
        groups: Sequence[str] | None = None,
    ) -> list[int]:
        """Adds images that are encoded already, and returns their ids.

        Args:
            pixels: each image as the encoder saw it, uint8 of shape ``(c, h, w)``.
            rows: the prepared row of each image, shape ``(n, *row)``.
            labels, items, once, groups: see :meth:`learn`.
            allow: called with the gallery before and after the change. If it raises, nothing is changed.
            depth: how they were read.
        """
        with self.writing() as put:
            if once:  # under the lock, or another process could add the same pictures
                kept = first_of_each(self.model, self.image, pixels, rows, labels, items)
                rows, pixels = rows[kept], [pixels[i] for i in kept]
                labels, items = [labels[i] for i in kept], [items[i] for i in kept]
                groups = None if groups is None else [groups[i] for i in kept]
            if not len(rows):
                return []
            before = self.model.gallery
            gallery = before.add(rows, labels, items, picture_hash(torch.stack(list(pixels))), groups)
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
        """Replaces the gallery by the one that ``edit`` returns for it; ``allow`` is as for :meth:`keep`."""
        with self.writing() as put:
            before = self.model.gallery
            gallery = edit(before)
            if allow:
                allow(before, gallery)
            put(gallery)

    def forget(self, ids: Iterable[int] = (), label: str | None = None) -> None:
        """Removes the images with these ids, and the class ``label`` if one is given."""
        self.change(
            lambda gallery: gallery.without(ids) if label is None else gallery.without(ids).without_class(label)
        )

    def rename(self, old: str, new: str) -> None:
        """Renames a class. If there is already a class called ``new``, the two are merged."""
        self.change(lambda gallery: gallery.renamed(old, new))

    def move(self, number: int, label: str) -> None:
        """Moves an image to another class, which may be new."""
        self.change(lambda gallery: gallery.moved(number, label))

    def image(self, number: int) -> Path:
        """Returns the path of an image as the encoder saw it. The file may be missing."""
        return self.path / "images" / f"{number}.png"

    def calibrate(self) -> Model:
        """Computes the trust and the state of the model, stores them for later programs, and returns the model."""
        if self.origin:
            return self.model
        with self.writing():
            model = self.model
            if len(model.gallery.names) > 1:
                _ = model.trust, model.state
                self._keep(model)
        return model

    @deprecated("ModelFolder.settle is now called ModelFolder.calibrate; the old name goes with the next version")
    def settle(self) -> Model:
        """The old name of :meth:`calibrate`."""
        return self.calibrate()

    @classmethod
    def _refuse_other(cls, path: Path) -> None:
        refuse_other(path)

    def _change(self, gallery: Gallery, depth: Depth | None = None) -> Model:
        before = self.model
        model = before.changed(gallery, depth)
        self._keep(model)
        (self.path / "confusion.png").unlink(missing_ok=True)  # it shows the images before the change
        for number in set(before.gallery.ids.tolist()) - set(gallery.ids.tolist()):
            self.image(number).unlink(missing_ok=True)  # only now: a reader of the old gallery may still open it
        return model

    def _read(self) -> Model:
        return read_gallery(self._file, self.representation)

    def _put(self, model: Model) -> None:
        write_gallery(self._file, model, self.representation)

    def _card(self, model: Model) -> str:
        return model_card(model, self.name)

    def _draw(self, number: int, pixels: Tensor) -> None:
        path = self.image(number)
        path.parent.mkdir(exist_ok=True)
        write_png(path, pixels.permute(1, 2, 0).numpy())
