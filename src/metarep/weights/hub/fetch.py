"""fetch: download a model or a run of the Hub into its cache, and check each file before anything is read from it."""

import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarep.errors import MetarepError
from metarep.machine.files import making
from metarep.weights.hub import contents
from metarep.weights.hub.client import client, offline, quiet_bars, unreachable, worded
from metarep.weights.hub.contents import ENCODER, GALLERY, IMAGE, LABELS, MANIFEST, WEIGHTS, Entry
from metarep.weights.hub.names import COMMIT, HubName, is_hub_name

TRIES = 3  # a repository may get a new commit while it is listed


class HubWarning(UserWarning):
    """Says which commit a name on the Hub stands for now, or that its copy in the cache is used."""


@dataclass(frozen=True)
class Fetched:
    """A model or a run of the Hub, in its cache. Its files must not be changed; :func:`pull` makes a copy.

    Args:
        folder: the folder of the commit.
        name: ``hf:USER/NAME@COMMIT``, which stands for the same files for good.
        files: the names of its files.

    >>> run = Fetched(Path("cache"), "hf:ada/moths@" + 40 * "0", ("model.safetensors", "README.md"))
    >>> run.weights.name
    'model.safetensors'
    """

    folder: Path
    name: str
    files: tuple[str, ...]

    @property
    def weights(self) -> Path:
        """The file of its encoder: that of a model, or that of a run."""
        return self.folder / (ENCODER if ENCODER in self.files else WEIGHTS)


def fetch(name: str | Path) -> Fetched:
    """Download a model or a run of the Hub, unless its cache has it, and check every file.

    Only safetensors, JSON, the card and the images of a model are downloaded. The size and the hash of each file are
    compared with those that the Hub lists, and with the manifest that :func:`metarep.push` wrote. With
    ``HF_HUB_OFFLINE=1``, and for a name with the hash of a commit, the cache is used without the network if it can be.

    Args:
        name: ``hf:USER/NAME`` or ``hf:USER/NAME@REVISION``.

    Raises:
        MetarepError: there is no such model, it holds no safetensors, a file was changed, or ``huggingface_hub`` is not
            installed.

    Warns:
        HubWarning: the name stands for a commit that may be another one tomorrow; or the Hub cannot be reached.
    """
    hub = HubName.read(name)
    with worded(hub), quiet_bars():
        fetched = _cached(hub) if hub.pinned or offline() else None
        if fetched is None and offline():
            why = f"{hub} is not in the cache, and HF_HUB_OFFLINE is set"
            raise MetarepError(why, advice="unset it and load the model once with a network")
        if fetched is None:
            try:
                fetched = _downloaded(hub)
            except Exception as error:
                fetched = _cached(hub) if unreachable(error) else None
                if fetched is None:
                    raise
                warnings.warn(f"the Hub cannot be reached; {fetched.name} is in the cache and used", HubWarning, 3)
    if not hub.pinned:
        warnings.warn(f"{hub} is {fetched.name} now; this longer name loads the same files for good", HubWarning, 3)
    return fetched


def pinned(name: str) -> str:
    """A name with the hash of its commit, if it is one of the Hub; any other name as it is.

    >>> pinned("runs/protonet")
    'runs/protonet'
    """
    return fetch(name).name if is_hub_name(name) else name


def pull(name: str | Path, out: str | Path) -> Fetched:
    """Copy a model or a run of the Hub to a new folder, which can then be changed as any other.

    Args:
        name: see :func:`fetch`.
        out: the folder, which must not exist or must be empty.

    Returns:
        The commit that was copied, with the names of its files.

    Raises:
        MetarepError: see :func:`fetch`; or there is something at ``out`` already.

    >>> "gallery.safetensors" in pull("hf:me/moths", "moths").files  # doctest: +SKIP
    True
    """
    fetched, out = fetch(name), Path(out)
    last = next(name for name in (GALLERY, LABELS, WEIGHTS) if name in fetched.files)
    parts = {MANIFEST} | {file.partition("/")[0] for file in fetched.files} - {last}
    exists = MetarepError(f"{out} is there already", advice="choose another folder")
    busy = MetarepError(f"another process is making {out}", advice="wait until it has ended")
    with making(out.resolve(), last, parts, exists=exists, busy=busy) as partial:
        for file in fetched.files:
            if file != MANIFEST:
                (partial / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(fetched.folder / file, partial / file)
    return fetched


def _downloaded(hub: HubName) -> Fetched:
    """Download what is missing in the cache, and check all of it."""
    api = client()
    for _ in range(TRIES):
        info = api.HfApi().model_info(hub.repo, revision=hub.revision or None, files_metadata=True)
        if COMMIT.fullmatch(info.sha or "") is None or (hub.pinned and info.sha != hub.revision):
            raise MetarepError(f"the Hub gives another commit for {hub}, {str(info.sha)[:40]!r}; do not trust it")
        listed = {each.rfilename: _entry(each) for each in info.siblings or ()}
        names = contents.chosen(listed, str(hub))
        for name in names:
            contents.refuse_large(name, listed[name].size, str(hub))
        if MANIFEST in names:  # downloaded first: without its other files, the download is incomplete
            _snapshot(hub.at(info.sha), allow_patterns=[MANIFEST])
        folder = Path(_snapshot(hub, allow_patterns=names))
        if folder.name == info.sha:
            return _checked(hub.at(folder.name), folder, names, listed)
    raise MetarepError(f"{hub} gets new commits faster than it can be loaded", advice="name one of them by its hash")


def _cached(hub: HubName) -> Fetched | None:
    """The files of a name in the cache, after a check; None if the cache does not have all of them."""
    try:
        folder = Path(_snapshot(hub, allow_patterns=[MANIFEST], local_files_only=True))
        there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        names = contents.chosen([name for name in there if contents.belongs(name)], str(hub))
    except (client().errors.LocalEntryNotFoundError, MetarepError):
        return None
    manifest = contents.read_manifest(folder / MANIFEST, str(hub)) if MANIFEST in names else {}
    return _checked(hub.at(folder.name), folder, names, {}) if set(manifest) <= set(names) else None


def _checked(hub: HubName, folder: Path, names: Iterable[str], listed: dict[str, Entry]) -> Fetched:
    """Compare each file with what the Hub lists, with its name in the cache, and with the manifest."""
    known = {name: [contents.entry_of_link(folder / name), listed.get(name, Entry())] for name in names}
    if MANIFEST in known:
        contents.refuse_changed(folder, {MANIFEST: known[MANIFEST]}, folder.parents[2], str(hub))
        manifest = contents.read_manifest(folder / MANIFEST, str(hub))
        if strange := [name for name in known if name not in (MANIFEST, contents.CARD) and name not in manifest]:
            raise MetarepError(f"{strange[0]} of {hub} is not in its manifest, so it was not pushed with the others")
        for name, entry in manifest.items():
            if name in known or not IMAGE.fullmatch(name):
                known.setdefault(name, []).append(entry)
    contents.refuse_changed(folder, known, folder.parents[2], str(hub))
    return Fetched(folder, str(hub), tuple(sorted(known)))


def _snapshot(hub: HubName, **options: Any) -> str:  # noqa: ANN401 - of snapshot_download
    return client().snapshot_download(hub.repo, revision=hub.revision or None, **options)


def _entry(sibling: Any) -> Entry:  # noqa: ANN401 - RepoSibling
    """The size and the hash of a file on the Hub: the SHA-256 of a large file (Git LFS), or the git blob id."""
    if sibling.lfs is not None:
        return Entry(sibling.lfs.size, sibling.lfs.sha256)
    return Entry(sibling.size, blob=sibling.blob_id or "")
