"""MultiLabelFolder: a model of several labels an image on disk. A write is atomic, and nothing is pickled."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarep.data.reading.depth import Depth
from metarep.errors import Advice, Call, MetarepError, Slot
from metarep.model.folder_kind import is_multi_label
from metarep.model.hub_copy import refuse_copy
from metarep.model.multi_label.card import labels_card
from metarep.model.multi_label.changes import Added, add_images, remove_labels
from metarep.model.multi_label.file import read_labels, write_labels
from metarep.model.multi_label.model import MultiLabelModel
from metarep.model.multi_label.rows import encoded
from metarep.model.store import ModelStore
from metarep.weights.hub.contents import LABELS


class MultiLabelFolder(ModelStore[MultiLabelModel]):
    """A model of several labels an image in a folder, which several processes may change.

    It holds ``encoder.safetensors``, which never changes; ``labels.safetensors``, the features, labels and measures,
    which one rename replaces when the model changes; and ``README.md``, its card. It does not hold the images.

    Args:
        path: the folder.
        representation: the encoder of ``encoder.safetensors``.
        origin: ``hf:USER/NAME@COMMIT`` of a model on the Hub, which cannot be changed; empty for others.

    >>> import tempfile
    >>> import torch
    >>> from metarep import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,)), width=4)
    >>> images = torch.randint(0, 255, (4, 1, 16, 16), dtype=torch.uint8).numpy()
    >>> model = MultiLabelModel.fit(encoder, images[:3], [["sun"], ["sea"], ["sun", "sea"]])
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = MultiLabelFolder.create(Path(parent) / "beach", model)
    ...     added = folder.learn(images[3:], [[]], ["4.png"])
    ...     folder.forget(["sea"])
    ...     added.model.in_words, MultiLabelFolder.open(folder.path).model.names
    ('2 labels, 4 images', ('sun',))
    """

    FILE = LABELS

    @classmethod
    def create(cls, path: str | Path, model: MultiLabelModel) -> "MultiLabelFolder":
        """Writes ``model`` to a new model folder at ``path``, and returns the folder.

        Raises:
            MetarepError: ``path`` exists already, another process is making it, or the model has no encoder.
        """
        path = Path(path)
        add = Call("MultiLabelFolder.learn", "add", path, Slot("LIST"))
        more = [Advice("add to it with {add}", add=add)] if is_multi_label(path) else []
        with cls._making(path, model, model.representation, more) as folder:
            return folder

    def learn(
        self,
        images: Any,  # noqa: ANN401 - whatever people have
        labels: Sequence[Sequence[str]],
        items: Sequence[str],
        *,
        batch: int = 64,
        depth: Depth | None = None,
        skip_bad: bool = False,
        groups: Sequence[str] | None = None,
    ) -> Added:
        """Encodes images and adds them; see :func:`metarep.model.multi_label.changes.add_images`.

        The folder is locked only after encoding. What the model says of itself is measured again before the one rename
        that makes the change, so that whoever reads the folder finds the old model or the new one.

        Args:
            images: see :func:`metarep.data.reading.photographs.read_images`.
            labels: the labels of each image; an empty list if it has none.
            items: the name that people use for each, mostly its path.
            batch: the number of images that are encoded at a time.
            depth: black and white of these images, if they have more than 8 bits. The model remembers it.
            skip_bad: whether to leave out images that cannot be read.
            groups: what each image shows, such as one specimen; None if each is by itself.

        Raises:
            MetarepError: an image cannot be read, none is left, or the model is a copy from the Hub.

        Warns:
            LeftOutWarning: with ``skip_bad``, for each image that cannot be read.
        """
        refuse_copy(self.origin)  # now, and not only after the images are encoded
        rows, hashes, kept = encoded(self.model.base, images, batch=batch, depth=depth, skip_bad=skip_bad)
        with self.writing() as put:
            model = self.model
            given = [labels[i] for i in kept], [items[i] for i in kept], (depth or Depth()) | model.depth
            own = None if groups is None else [groups[i] for i in kept]
            added = add_images(model, rows, hashes, *given, own)
            put(added.model)
        return added

    def forget(self, labels: Sequence[str]) -> None:
        """Removes labels; see :func:`metarep.model.multi_label.changes.remove_labels`."""
        with self.writing() as put:
            put(remove_labels(self.model, labels))

    @classmethod
    def _refuse_other(cls, path: Path) -> None:
        if not is_multi_label(path):
            fit = Call("MultiLabelModel.fit", "fit", Slot("LIST"), out=Slot("MODEL"), multi_label=True)
            raise MetarepError(
                f"{path} is not a model of several labels an image", advice=Advice("make one with {fit}", fit=fit)
            )

    def _change(self, model: MultiLabelModel) -> MultiLabelModel:
        self._keep(model)
        return model

    def _read(self) -> MultiLabelModel:
        return read_labels(self._file, self.representation)

    def _put(self, model: MultiLabelModel) -> None:
        write_labels(self._file, model, self.representation)

    def _card(self, model: MultiLabelModel) -> str:
        return labels_card(model, self.name)
