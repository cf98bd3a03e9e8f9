"""Files that a stranger may send: each claims or asks for something that would fill the memory, hang, or mislead.

:func:`cases` lists them. Each changes one part of a folder of honest files (:func:`honest`) and opens it by a public
function.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hostile import archives, banks, folders, graphs, images, settings, tensors
from hostile.tensors import about, retensored

Case = tuple[str, Callable[[Path], object], Callable[[Path], object]]
RUN, ENCODER, MAML = "run/model.safetensors", "encoder.safetensors", "maml.safetensors"
MODEL, INDEX = "model/gallery.safetensors", "index/index.safetensors"


def honest(folder: Path) -> Path:
    """A folder with one honest file of each kind: run, encoder, model folder and image index."""
    from folders import fill  # pyright: ignore[reportAttributeAccessIssue] - of tests, and not of this folder

    from metarep.encoders import Preprocess, build_encoder
    from metarep.methods import build_method
    from metarep.model.folder import ModelFolder
    from metarep.model.gallery import Gallery
    from metarep.model.model import Model
    from metarep.search.image_index import ImageIndex
    from metarep.weights.checkpoint import save_checkpoint
    from metarep.weights.record import DataRecord, RunRecord
    from metarep.weights.representation import Representation

    def encoder() -> Any:
        return build_encoder("conv4", Preprocess((20, 20), 3, (0.5,) * 3, (0.5,) * 3), width=8).eval()

    record = RunRecord("protonet", data=DataRecord("glyphs", "train", 20))
    save_checkpoint(
        folder / "run" / "model.safetensors", build_method("protonet", encoder(), {}), record, ["0123456789ab"]
    )
    descent = build_method("maml", encoder(), {"rates": "layer"})
    save_checkpoint(folder / "maml.safetensors", descent, RunRecord("maml", {"rates": "layer"}), [])
    bare = Representation(encoder(), "conv4")
    bare.save(folder / "encoder.safetensors")
    model = Model(bare, {"name": "prototypes"})
    rows = torch.rand(6, bare.encoder.dim)
    gallery = Gallery.empty().add(rows, ["moth", "fly"] * 3, [f"{i}.png" for i in range(6)])
    ModelFolder.create(folder / "model", model.changed(gallery)).calibrate()
    fill(folder / "photos", ["moth", "fly"])
    with ImageIndex.create(folder / "index", bare) as index:
        index.add([folder / "photos"])
    shutil.copy(folder / "photos/moth/0.png", folder / "index/query.png")
    banks.honest_bank(folder)
    return folder


def _encoder(path: Path) -> object:
    from metarep.weights.named import load_representation

    return load_representation(path)


def _learner(path: Path) -> object:
    from metarep import load_learner

    return load_learner(path)


def _bare(path: Path) -> object:
    from metarep.weights.named import load_representation

    return load_representation(path, arch="conv4:8")


def _model(path: Path) -> object:
    from metarep.model.folder import ModelFolder

    return ModelFolder.open(path.parent).calibrate().answer(torch.rand(1, 8))


def _index(path: Path) -> object:
    from metarep.search.image_index import ImageIndex

    with ImageIndex(path.parent) as index:
        return index.search([path.parent / "query.png"], 3)


def cases() -> dict[str, Case]:
    """Of each case the file, the function that makes it hostile, and the one that opens it."""
    every: dict[str, Case] = {}
    doors = {"run": (RUN, _encoder), "encoder": (ENCODER, _encoder), "model": (MODEL, _model), "index": (INDEX, _index)}
    for kind, (file, opened) in doors.items():
        for name, change in tensors.SAFETENSORS.items():
            if kind == "run" or name in ("metadata that are deep", "a header without end"):
                every[f"{kind}: {name}"] = (file, change, opened)
    for name, change in tensors.SAFETENSORS.items():
        if "metadata" not in name:  # which are not read
            every[f"bare: {name}"] = (ENCODER, change, _bare)
    for kind, file, opened, changes in (
        ("run", RUN, _encoder, tensors.CHECKPOINT),
        ("encoder", ENCODER, _encoder, tensors.CHECKPOINT),
        ("run", RUN, _learner, tensors.RUNS),
        ("maml", MAML, _learner, tensors.DESCENT),
        ("model", MODEL, _model, folders.GALLERY),
        ("index", INDEX, _index, folders.VECTORS),
    ):
        every |= {f"{kind}: {name}": (file, about(change), opened) for name, change in changes.items()}
    for kind, file, opened, changes in (
        ("model", MODEL, _model, folders.GALLERY_TENSORS),
        ("index", INDEX, _index, folders.VECTOR_TENSORS),
    ):
        for name, change in changes.items():
            every[f"{kind}: {name}"] = (file, lambda path, change=change: retensored(path, change), opened)
    every |= {f"bank: {name}": ("cache", change, banks.open_bank) for name, change in banks.BANKS.items()}
    every |= {f"items: {name}": (INDEX, folders.first_line(line), _index) for name, line in folders.LINES.items()}
    for kind, file, opened, contents in (
        ("image", "x.png", images.open_image, images.IMAGES),
        ("pickle", "train", archives.open_pickle, archives.PICKLES),
        ("npz", "train.npz", archives.open_npz, archives.NPZ),
        ("zip", "x.zip", archives.open_entries, archives.ZIPS),
        ("tar", "x.tar.gz", archives.open_tar, archives.TARS),
        ("graph", "x.onnx", graphs.open_graph, graphs.ONNX),
        ("config", "my.toml", settings.open_config, settings.TOMLS),
        ("depth", "depth.json", settings.open_depth, settings.JSONS),
        ("record", "settings.json", settings.open_record, {**settings.JSONS, **settings.RECORDS}),
    ):
        every |= {f"{kind}: {name}": (file, _written(content), opened) for name, content in contents.items()}
    return every


def _written(content: bytes | Callable[[], bytes]) -> Callable[[Path], object]:
    """The function that writes this content to a file."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content())


def copied(base: Path, file: str, folder: Path) -> Path:
    """A copy of an honest file and its folder in another folder; the path of the file if there is no honest one."""
    top = file.partition("/")[0]
    if (base / top).is_dir():
        shutil.copytree(base / top, folder / top)
    elif (base / top).exists():
        shutil.copy(base / top, folder / top)
    return folder / file
