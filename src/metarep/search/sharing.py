"""Sharing: several processes embed the files of one index together. The first has the index and asks the others."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from metarep.data.reading.depth import Depth
from metarep.errors import DataError
from metarep.machine.ranks import Part, from_first, gather_all, gather_values, rank

Embedded = tuple[Tensor, list[DataError | None]]
Embed = Callable[[Sequence[Path], Depth], Embedded]


def embed_together(embed: Embed, files: Sequence[Path], depth: Depth, batch: int) -> Embedded:
    """Embed files on all processes, while the others are in :func:`help_embed`.

    Args:
        embed: embeds the files of one process.
        files: all files.
        depth: black and white of deep pictures.
        batch: number of files that the encoder takes at a time. Each process takes whole batches, so that the vectors
            are those of a single process.

    Returns:
        The vectors of the readable files, and for each file None or the error; see ``Embedder``.
    """
    request = {"files": [str(file) for file in files], "depth": depth.as_dict(), "batch": batch}
    from_first(json.dumps(request).encode())
    return _answer(embed, request)


def help_embed(embed: Embed) -> None:
    """Embed this process's part of the files that the first process asks for, until it calls :func:`dismiss`."""
    while content := from_first(None):
        _answer(embed, json.loads(content))


def dismiss() -> None:
    """End :func:`help_embed` on the other processes."""
    if rank() == 0:
        from_first(b"")


def _answer(embed: Embed, request: dict) -> Embedded:
    files = [Path(name) for name in request["files"]]
    batches = Part.own(-(-len(files) // request["batch"]))
    own = files[batches.start * request["batch"] : batches.stop * request["batch"]]
    rows, errors = embed(own, Depth.of(request["depth"]))
    texts = gather_values([error and error.message for error in errors])
    every = [text and DataError(text) for part in texts for text in part]
    return gather_all(torch.as_tensor(rows)), every
