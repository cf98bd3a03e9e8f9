"""push: send a model folder or a run folder to the Hub, as safetensors, JSON and a card, and never a pickle."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarep.errors import MetarepError
from metarep.machine.files import read_tensors
from metarep.weights.card import MARK
from metarep.weights.checkpoint import load_checkpoint
from metarep.weights.hub import contents
from metarep.weights.hub.client import LOG_IN, client, offline, quiet_bars, worded
from metarep.weights.hub.contents import (
    CARD,
    ENCODER,
    GALLERY,
    IMAGE,
    LABELS,
    MANIFEST,
    MODEL,
    MULTI_LABEL,
    RUN,
    WEIGHTS,
)
from metarep.weights.hub.names import HubName
from metarep.weights.named import load_representation


@dataclass(frozen=True)
class Pushed:
    """What was sent to the Hub.

    Args:
        name: ``hf:USER/NAME@COMMIT``, by which it is loaded.
        url: the page of the model.
        private: whether only its owner sees it.
        files: the size of each file in bytes, by name.
        kept: the number of images in the folder that were not sent.

    >>> sent = Pushed("hf:ada/moths@" + 40 * "0", "https://example.org/ada/moths", False, {"README.md": 1200}, kept=60)
    >>> sum(sent.files.values()), sent.name.partition("@")[0]
    (1200, 'hf:ada/moths')
    """

    name: str
    url: str
    private: bool
    files: dict[str, int]
    kept: int


def push(
    path: str | Path, name: str, *, images: bool = False, private: bool = False, card: str | None = None
) -> Pushed:
    """Send a model folder or a run folder to the Hub.

    Of a model these are ``encoder.safetensors``, ``gallery.safetensors`` (or ``labels.safetensors``, if an image may
    have several labels) and ``README.md``; of a run
    ``model.safetensors``, ``settings.json``, ``environment.json``, ``log.jsonl`` and ``README.md``; and for both
    ``metarep.json``, a manifest with the size and SHA-256 of each file. The gallery holds features of the labelled
    images and their names, which are mostly their paths. The images themselves stay here unless ``images`` is true.

    Args:
        path: the folder.
        name: ``hf:USER/NAME``; it is made if it does not exist, and gets a new commit if it does.
        images: whether to send the images of a model too, as the encoder saw them. Answers do not need them.
        private: whether only you are to see it.
        card: the text of ``README.md``; None for that of the folder.

    Returns:
        The name of the new commit, by which everybody loads exactly these files, and what was sent.

    Raises:
        MetarepError: the folder holds no model and no run, a file is damaged, nobody is logged in, the Hub refuses it,
            or the repository can be seen by everybody and ``private`` is true.

    >>> push("moths", "hf:me/moths").name  # doctest: +SKIP
    'hf:me/moths@2f9a0e7c1d34b5f6a7c8d9e0f1a2b3c4d5e6f708'
    """
    path, hub = Path(path), HubName.read(name)
    if hub.revision:
        raise MetarepError(f"{hub} names a revision, and the Hub gives each push its own", advice="leave @... out")
    kind = _kind_of(path)
    api = client()
    if offline():
        raise MetarepError("HF_HUB_OFFLINE is set, so nothing can be sent", advice="unset it")
    if not api.get_token():
        raise MetarepError(f"{hub} cannot be written without a token of the Hub", advice=LOG_IN)
    with tempfile.TemporaryDirectory(prefix="metarep-push-") as folder:
        files = _copied(path, Path(folder), kind, images=images)
        text = card if card is not None else _card_of(path)
        if text is not None:
            (Path(folder) / CARD).write_text(_for_the_hub(text, path, hub), "utf-8")
            files[CARD] = Path(folder) / CARD
        with worded(hub, writing=True), quiet_bars():
            private = _made(api, hub, private=private)
            commit = _commit(api, hub, files)
        sizes = {file: source.stat().st_size for file, source in sorted(files.items())}
    kept = 0 if images else len(list((path / "images").glob("*.png")))
    url = f"{api.constants.ENDPOINT}/{hub.repo}"
    return Pushed(str(hub.at(commit)), url, private, sizes, kept)


def _kind_of(path: Path) -> tuple[str, ...]:
    """The names of the files that are sent from a folder, by its kind: a model, a multi-label model, or a run."""
    for kind in (MODEL, MULTI_LABEL):
        if all((path / name).is_file() for name in kind if name != CARD):
            return kind
    if (path / WEIGHTS).is_file():
        return RUN
    what = "is not a folder" if path.exists() and not path.is_dir() else "holds no model and no run"
    raise MetarepError(
        f"{path} {what if path.exists() else 'does not exist'}", advice="give a model folder or a run folder"
    )


def _copied(path: Path, folder: Path, kind: tuple[str, ...], *, images: bool) -> dict[str, Path]:
    """Copy the files of a model or a run, so that they stay the same while they are sent, and write their manifest."""
    names = [name for name in kind if name != CARD and (path / name).is_file()]
    if images and kind is MODEL:
        names += sorted(
            name for each in (path / "images").glob("*.png") if IMAGE.fullmatch(name := f"images/{each.name}")
        )
    for name in names:
        source = path / name
        if source.is_symlink() and not source.resolve().is_relative_to(path.resolve()):
            raise MetarepError(f"{source} is a link that leads out of the folder; put the file itself there")
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / name)
        contents.refuse_large(name, (folder / name).stat().st_size, str(path))
    _refuse_damaged(folder, kind)
    files = {name: folder / name for name in names}
    (folder / MANIFEST).write_text(contents.written_manifest(files), "utf-8")
    return files | {MANIFEST: folder / MANIFEST}


def _refuse_damaged(folder: Path, kind: tuple[str, ...]) -> None:
    """Raise if this library cannot read the weights, so that only files of weights are sent."""
    if kind is not RUN:
        load_representation(folder / ENCODER)
        read_tensors(folder / (GALLERY if kind is MODEL else LABELS))
    else:
        load_checkpoint(folder / WEIGHTS)


def _card_of(path: Path) -> str | None:
    return (path / CARD).read_text("utf-8", errors="replace") if (path / CARD).is_file() else None


def _for_the_hub(text: str, path: Path, hub: HubName) -> str:
    """The text of a card whose example loads the model from the Hub. A card that a user has edited is not changed."""
    if MARK not in text:
        return text
    own = path.resolve().name
    for call in ("FewShotClassifier.load", "MultiLabelFolder.open", "load_learner"):
        text = text.replace(f"{call}({own!r})", f"{call}({str(hub)!r})")
    return text


def _made(api: Any, hub: HubName, *, private: bool) -> bool:  # noqa: ANN401 - huggingface_hub
    """Make the repository if it does not exist. Returns whether it is private.

    Raises:
        MetarepError: ``private`` is set, and the repository exists and is public.
    """
    api.HfApi().create_repo(hub.repo, private=private, exist_ok=True)
    now = bool(api.HfApi().model_info(hub.repo).private)
    if private and not now:
        advice = ("make it private on its page", "choose another name")
        raise MetarepError(f"{hub} exists and everybody can see it, so nothing was sent", advice=advice)
    return now


def _commit(api: Any, hub: HubName, files: dict[str, Path]) -> str:  # noqa: ANN401 - huggingface_hub
    """Send the files as one commit, which also removes the files of an earlier model that this one does not have."""
    there = api.HfApi().list_repo_files(hub.repo)
    gone = [name for name in there if contents.belongs(name) and name not in files and name != CARD]
    operations = [api.CommitOperationAdd(name, str(source)) for name, source in sorted(files.items())]
    operations += [api.CommitOperationDelete(name) for name in gone]
    return str(api.HfApi().create_commit(hub.repo, operations, commit_message="Push with metarep").oid)
