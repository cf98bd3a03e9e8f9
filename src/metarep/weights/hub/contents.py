"""Contents of a repository: which files make up a model or a run, how large they may be, and how they are checked."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from metarep.errors import MetarepError
from metarep.machine.digests import sha256_of
from metarep.machine.untrusted import parse_json
from metarep.machine.version import __version__

MANIFEST = "metarep.json"
ENCODER, GALLERY, WEIGHTS, CARD = "encoder.safetensors", "gallery.safetensors", "model.safetensors", "README.md"
SETTINGS = "settings.json"  # of a run
LABELS = "labels.safetensors"  # of a model of several labels an image, instead of the gallery
MIB = 1 << 20
MOST = {  # bytes; files of tensors may have any size, because they are mapped and not read into memory
    MANIFEST: 32 * MIB,
    CARD: 4 * MIB,
    SETTINGS: 4 * MIB,
    "environment.json": 4 * MIB,
    "log.jsonl": 256 * MIB,
}
MODEL = (ENCODER, GALLERY, CARD)
MULTI_LABEL = (ENCODER, LABELS, CARD)
RUN = (WEIGHTS, CARD, SETTINGS, "environment.json", "log.jsonl")
IMAGE, IMAGE_BYTES, IMAGES = re.compile(r"images/[0-9]{1,12}\.png", re.ASCII), 64 * MIB, 100_000
PICKLES = (".bin", ".ckpt", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pth")
CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """What is known of a file before it is read.

    Args:
        size: its bytes; None if that is not known.
        sha256: the SHA-256 of its content; empty if that is not known.
        blob: the hash that git gives its content; empty if that is not known.
    """

    size: int | None = None
    sha256: str = ""
    blob: str = ""


def belongs(name: str) -> bool:
    """Whether a file of this name is part of a model or a run. No other file is sent or fetched.

    >>> belongs("encoder.safetensors"), belongs("images/7.png")
    (True, True)
    >>> belongs("../gallery.safetensors"), belongs("pytorch_model.bin"), belongs("images/../7.png")
    (False, False, False)
    """
    return name in {*MODEL, *MULTI_LABEL, *RUN, MANIFEST} or IMAGE.fullmatch(name) is not None


def chosen(names: Collection[str], what: str) -> list[str]:
    """The files of a model or a run among the names of a repository.

    Args:
        names: the names of its files.
        what: the name of the repository, for the message.

    Raises:
        MetarepError: it holds neither a model nor a run.

    >>> chosen(["model.safetensors", "run.py", "README.md"], "hf:ann/run")
    ['README.md', 'model.safetensors']
    >>> chosen(["pytorch_model.bin"], "hf:ann/net")
    Traceback (most recent call last):
    metarep.errors.MetarepError: hf:ann/net holds no safetensors, but pickles (pytorch_model.bin), which can run any ...
    """
    if {ENCODER, GALLERY} <= set(names):
        wanted = [*MODEL, MANIFEST]
    elif {ENCODER, LABELS} <= set(names):
        wanted = [*MULTI_LABEL, MANIFEST]
    elif WEIGHTS in names:
        wanted = [*RUN, MANIFEST]
    else:
        pickles = sorted(name for name in names if name.lower().endswith(PICKLES))
        if pickles and not any(name.endswith(".safetensors") for name in names):
            why = f"no safetensors, but pickles ({_some(pickles)}), which can run any program when they are read"
            raise MetarepError(f"{what} holds {why}", advice="ask its owner for model.safetensors")
        advice = f"a model has {ENCODER} and {GALLERY} or {LABELS}, and a run or an encoder has {WEIGHTS}"
        raise MetarepError(f"{what} holds no model and no run", advice=advice)
    images = [name for name in names if IMAGE.fullmatch(name)] if GALLERY in wanted else []
    if len(images) > IMAGES:
        raise MetarepError(f"{what} holds {len(images):,} images, which is more than {IMAGES:,}")
    return sorted([*(name for name in wanted if name in names), *images])


def refuse_large(name: str, size: int | None, what: str) -> None:
    """Raise if a file is larger than one of its kind may be.

    Args:
        name: of the file.
        size: its bytes; None if they are not known.
        what: the name of the repository or folder.

    Raises:
        MetarepError: it is larger than the limit.
    """
    most = MOST.get(name, IMAGE_BYTES if IMAGE.fullmatch(name) else None)
    if most is not None and size is not None and size > most:
        raise MetarepError(f"{name} of {what} has {size:,} bytes, and at most {most:,} are read")


def written_manifest(files: Mapping[str, Path]) -> str:
    """The text of a manifest, which has the size and the SHA-256 of each file but the card, which people edit.

    Args:
        files: the paths of the files by their names in the repository.
    """
    listed = {name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for name, path in sorted(files.items())}
    return json.dumps({"format": 1, "metarep": __version__, "files": listed}, indent=1) + "\n"


def read_manifest(path: Path, what: str) -> dict[str, Entry]:
    """The entries of a manifest by the names of the files.

    Args:
        path: the file, which may be damaged or hostile.
        what: the name of the repository, for the message.

    Raises:
        MetarepError: it is not a manifest, or names files that are not part of a model.
    """
    refuse_large(MANIFEST, path.stat().st_size, what)
    try:
        content = parse_json(path.read_bytes())
        if content["format"] != 1:
            raise ValueError(f"its format is {content['format']!r} and not 1; a newer metarep may read it")
        files = {name: (each["size"], each["sha256"]) for name, each in content["files"].items()}
        if strange := [name for name in files if name == MANIFEST or not belongs(name)]:
            raise ValueError(f"it names {strange[0][:100]!r}")
        if not all(isinstance(size, int) and isinstance(sha256, str) and sha256 for size, sha256 in files.values()):
            raise ValueError("a size or a hash is of another type")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MetarepError(f"{MANIFEST} of {what} is damaged: {str(error)[:200]}") from error
    return {name: Entry(size, sha256) for name, (size, sha256) in files.items()}


def refuse_changed(folder: Path, known: Mapping[str, Iterable[Entry]], within: Path, what: str) -> None:
    """Raise if a file is not the one that somebody has listed.

    Args:
        folder: the folder that was fetched.
        known: for the name of each file what is known of it, from the Hub and from the manifest.
        within: the folder that holds all of them, even where one is a link.
        what: the name of the repository, for the message.

    Raises:
        MetarepError: a file is missing, leads elsewhere, or has another size or hash.
    """
    for name, entries in known.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(within.resolve()):
            raise MetarepError(f"{name} of {what} is a link that leads out of the cache, to {path}")
        if not path.is_file():
            raise MetarepError(f"{name} of {what} is missing")
        size = path.stat().st_size
        refuse_large(name, size, what)
        changed = any(entry.size not in (None, size) for entry in entries)
        sha256 = "" if changed else sha256_of(path)
        if changed or any(
            (entry.sha256 and entry.sha256 != sha256) or (entry.blob and entry.blob != blob_of(path))
            for entry in entries
        ):
            raise MetarepError(
                f"{name} of {what} is not the file that was pushed: its size or its hash is another",
                advice=(f"delete {path}, if the copy may be damaged, and load it again", "ask its owner"),
            )


def entry_of_link(path: Path) -> Entry:
    """What the name of a file in the Hub's cache says of its content: it is called by its hash.

    Args:
        path: a file in the folder of a commit, which is a link where the system has links.
    """
    name = path.resolve().name if path.is_symlink() else ""
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return Entry(sha256=name)
    return Entry(blob=name) if re.fullmatch(r"[0-9a-f]{40}", name) else Entry()


def blob_of(path: Path) -> str:
    r"""The hash that git gives the content of a file: a SHA-1 of its size and its bytes, as 40 hexadecimal digits.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"hello\n") and file.flush()
    ...     blob_of(Path(file.name))
    'ce013625030ba8dba906f756967f9e9ca394464a'
    """
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
