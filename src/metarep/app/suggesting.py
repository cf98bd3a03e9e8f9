"""Routes that rank unlabelled images: which of them to label next, and which classes need more images."""

import base64
import binascii
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from fastapi import APIRouter, File, Form, HTTPException, Query, UploadFile
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from metarep.app.limits import MOST_FILES
from metarep.app.schemas import Need, PoolImage, Suggested, Suggestions
from metarep.app.service import Served
from metarep.data.copies.picture_hash import LENGTH, picture_hash
from metarep.model.model import Model
from metarep.model.suggestions import class_needs, suggest

router = APIRouter(tags=["ask"])
GUESSES = 9  # classes that are listed for an image: as many as a keyboard has digits


@router.post("/suggest")
async def rank(
    service: Served,
    files: Annotated[list[UploadFile] | None, File(description="unlabelled images")] = None,
    encoded: Annotated[
        list[str] | None, Form(description="instead of files: images as an earlier response encoded them")
    ] = None,
    number: Annotated[int, Query(ge=0, le=MOST_FILES, description="number of suggestions; 0 only encodes")] = 10,
) -> Suggestions:
    """Rank unlabelled images, the one whose label would teach the model most first, as ``metarep suggest`` does.

    Nothing is kept on the server. A response to ``files`` holds each image ``encoded``; a later request may bring these
    texts instead of the files, also those of several responses together, and is answered without reading any image.
    """
    if (files is None) == (encoded is None):
        raise HTTPException(422, "a ranking needs either files or encoded images; give one of the two")
    if encoded is not None and not number:
        raise HTTPException(422, "number=0 only encodes files, and these images are encoded; ask for at least 1")
    given = encoded or []
    pixels, items = (None, []) if files is None else await service.read(files)
    hashes = None if pixels is None else await run_in_threadpool(picture_hash, pixels)

    def ranked(model: Model, rows: Tensor) -> Suggestions:
        if not len(model.gallery):
            raise HTTPException(409, "the model has no classes yet; add some images first")
        rows, own = _decoded(model, given) if hashes is None else (rows, hashes)
        suggested = suggest(model, rows, number=number, hashes=own) if number else []
        chosen = [each.row for each in suggested]
        answers = model.answer(rows[chosen], 0) if chosen else []
        suggestions = []
        for each, answer in zip(suggested, answers, strict=True):
            order = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])[:GUESSES]
            fields = replace(each, margin=round(each.margin, 6), stands_for=round(each.stands_for, 6))
            guesses = {name: round(value, 6) for name, value in order}
            suggestions.append(Suggested(**vars(fields), guesses=guesses))
        texts = [] if hashes is None else map(_encoded, rows, hashes)
        return Suggestions(
            images=[PoolImage(item=item, encoded=text) for item, text in zip(items, texts, strict=True)],
            suggestions=suggestions,
            classes=[Need(**each.as_dict()) for each in class_needs(model)],
        )

    return await service.run(ranked, pixels, items)


def _encoded(row: Tensor, own: Tensor) -> str:
    """Write the hash and the prepared row of an image as text."""
    return base64.b64encode(own.numpy().tobytes() + row.contiguous().numpy().tobytes()).decode()


def _decoded(model: Model, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Read rows and hashes that :func:`_encoded` has written.

    Raises:
        HTTPException: a text is not an image as this model encodes it.
    """
    example = model.gallery.rows[:1]
    size = LENGTH + example.numel() * example.element_size()
    parts = []
    for number, text in enumerate(texts):
        try:
            part = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            part = b""
        if len(part) != size:
            raise HTTPException(422, f"encoded image {number} is not one of this model; send the files again")
        parts.append(np.frombuffer(part, np.uint8))
    raw = torch.from_numpy(np.stack(parts))
    rows = raw[:, LENGTH:].contiguous().view(example.dtype).reshape(-1, *example.shape[1:])
    if rows.is_floating_point() and not rows.isfinite().all():
        raise HTTPException(422, "an encoded image is not finite; send the files again")
    return rows, raw[:, :LENGTH].contiguous().view(torch.int8)
