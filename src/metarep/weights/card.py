"""Model cards: what every README.md of a model or a run has in common, and how it is written."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from metarep.machine.files import replacing
from metarep.machine.version import __version__
from metarep.weights.record import DataRecord
from metarep.weights.representation import Representation
from metarep.weights.shipped import zoo_names

CARD = "README.md"
MARK = "<!-- metarep writes this file anew when the model changes; remove this line to keep a text of your own -->"
UNKNOWN = "unknown"
SIGNS = re.compile(r"([\\`*_\[\]<>|&~$#])")  # what Markdown would read as more than a letter
DATA_LICENCES = {
    "omniglot": "MIT",
    "omniglot-runs": "MIT",
    "cifar-fs": "none stated; CIFAR-100 is given for research",
    "fc100": "none stated; CIFAR-100 is given for research",
    "caltech-101": "CC BY 4.0",
    "miniimagenet": "that of ImageNet: for research that is not commercial",
    "glyphs": "drawn from fonts that ship with matplotlib, under the licences of these",
}


class CardWarning(UserWarning):
    """Warns that the card of a model could not be written. The model itself is not affected."""


def data_licence(spec: str) -> str:
    """The licence of a data set, where it is known.

    Args:
        spec: the data set, as ``name`` or ``name:argument``.

    >>> data_licence("omniglot:lake"), data_licence("folder:photos")
    ('MIT', 'unknown: ask whoever made the images')
    """
    return DATA_LICENCES.get(spec.partition(":")[0], f"{UNKNOWN}: ask whoever made the images")


def data_line(data: DataRecord) -> str:
    """One sentence on the data of a training: its name, part, digest and licence."""
    name, _, argument = data.name.partition(":")
    kind = name if name in ("folder", "bank") else f"{name}:{argument}" if argument else name
    digest = f", digest `{data.digest}`" if data.digest else ""
    return f"{escaped(kind or UNKNOWN)}, part {data.split or UNKNOWN}{digest}. Licence: {data_licence(data.name)}."


def encoder_lines(representation: Representation) -> list[str]:
    """The facts of an encoder, as items of a list: its name, its input, its licence, and what trained it."""
    encoder, name = representation.encoder, representation.name
    height, width = encoder.preprocess.size
    whole = name.startswith("hf:") or " (" in name  # a name on the Hub, or a file with its layout, such as ViT-S/16
    called = name if whole else Path(name).name or name
    kind = {1: "grey", 3: "RGB"}.get(encoder.preprocess.channels, f"{encoder.preprocess.channels} channels")
    lines = [
        f"- {escaped(called)}, a network of the kind {escaped(str(encoder.arch['name']))}, for images "
        f"of {height} x {width} px, {kind}; its feature space has the digest `{representation.digest}`",
        f"- licence of its weights: {encoder_licence(representation)}",
    ]
    if representation.checkpoint:
        record = representation.checkpoint.record
        lines.append(f"- trained by {record.method} on {data_line(record.data)}")
    return lines


def encoder_licence(representation: Representation) -> str:
    """The licence of the weights of an encoder, where it is known."""
    if representation.checkpoint and representation.name not in zoo_names():
        return "that of whoever trained it"
    return weights_licence(representation.name)


def weights_licence(name: str) -> str:
    """The licence of third-party weights and of models that ship, by their name.

    >>> weights_licence("efficientnet-lite0"), weights_licence("timm:resnet18")
    ('Apache-2.0; trained on ImageNet', 'unknown: see where the weights come from')
    """
    if name.startswith("efficientnet-lite"):
        return "Apache-2.0; trained on ImageNet"
    if name in zoo_names():
        return "Apache-2.0, as metarep, with which they ship"
    return f"{UNKNOWN}: see where the weights come from"


def escaped(text: str) -> str:
    r"""A text in which Markdown finds no signs of its own, in one line.

    >>> print(escaped("hawk_moth <b>"))
    hawk\_moth \<b\>
    """
    return SIGNS.sub(r"\\\1", " ".join(text.encode("utf-8", "backslashreplace").decode().split()))


def card_text(title: str, tags: Sequence[str], pipeline: str, parts: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The text of a card: YAML front matter as hubs of models read it, a title, and parts with headings.

    Args:
        title: the name of the model.
        tags: tags besides those that all models of metarep have.
        pipeline: the task, in the terms of hubs, such as ``image-classification``.
        parts: for each part its heading and its lines.

    >>> print(card_text("moths", ["a"], "image-classification", [("Task", ["Moths."])])[-16:])
    ## Task
    <BLANKLINE>
    Moths.
    <BLANKLINE>
    """
    listed = "\n".join(f"- {tag}" for tag in ("metarep", "few-shot-learning", *tags))
    front = f"---\nlibrary_name: metarep\npipeline_tag: {pipeline}\nlicense: {UNKNOWN}\ntags:\n{listed}\n---"
    body = "\n\n".join(f"## {heading}\n\n" + "\n".join(lines) for heading, lines in parts)
    made = f"Made by [metarep](https://pypi.org/project/metarep/) {__version__}."
    return f"{front}\n{MARK}\n\n# {escaped(title)}\n\n{made}\n\n{body}\n"


def write_card(folder: Path, text: str) -> bool:
    """Write the card of a folder, atomically. A card that somebody has made their own is left as it is.

    Args:
        folder: a model folder or a run folder.
        text: the card.

    Returns:
        Whether it was written. It may fail without harm, such as on a file system that can only be read.

    Warns:
        CardWarning: the card could not be written.
    """
    path = folder / CARD
    try:
        if path.exists() and MARK not in path.read_text("utf-8", errors="replace"):
            return False
        with replacing(path) as partial:
            partial.write_text(text, "utf-8")
    except OSError as error:
        warnings.warn(
            f"{path} could not be written ({error.strerror or error}); the model is not affected", CardWarning, 3
        )
        return False
    return True
