"""Routes that change the model: its classes and their images.

A change is on disk before it is acknowledged. Its response has the number of the change in a header, and ``POST /undo``
takes this number.
"""

from typing import Annotated

from fastapi import APIRouter, File, Form, HTTPException, Query, Response, UploadFile
from starlette.concurrency import run_in_threadpool

from metarep.app.limits import shown_name
from metarep.app.schemas import Classes, ClassOut, ImageOut, Images, Learned, Move, Rename, RepeatOut
from metarep.app.teaching_service import Taught
from metarep.data.class_names import look_alikes
from metarep.errors import NotHereError
from metarep.model.gallery import Gallery

router = APIRouter(tags=["teach"])
UNDO = "metarep-undo"  # the header with the number of the change
# A class's name travels in the query and never in the path, because it may contain a slash.
Name = Annotated[str, Query(description="name of the class")]


@router.get("/classes")
async def list_classes(service: Taught) -> Classes:
    """Return all classes, the oldest first."""
    gallery = (await service.model()).gallery
    ids: list[list[int]] = [[] for _ in gallery.names]
    for number, index in zip(gallery.ids.tolist(), gallery.classes.tolist(), strict=True):
        ids[index].append(number)
    alike: dict[str, list[str]] = {name: [] for name in gallery.names}
    for one, other in look_alikes(gallery.names):
        alike[one].append(other)
        alike[other].append(one)
    rows = zip(gallery.names, ids, strict=True)
    return Classes(classes=[ClassOut(name=name, images=len(own), ids=own, alike=alike[name]) for name, own in rows])


@router.post("/classes", status_code=201)
async def add_images(
    service: Taught,
    name: Annotated[str, Form(description="the class, which may be new")],
    files: Annotated[list[UploadFile], File(description="images")],
) -> Learned:
    """Add images to a class, which may be new. If one of them cannot be read, none is added.

    An image that the class has already is left out. An image that another class has is added. Both are listed as
    repeats.
    """
    label, ids, repeats = await service.learn(files, name)
    return Learned(
        label=label,
        ids=ids,
        repeats=[RepeatOut(item=each.item, same_as=each.same_as, label=each.label) for each in repeats],
    )


@router.patch("/classes", status_code=204)
async def rename_class(service: Taught, wish: Rename, response: Response) -> None:
    """Rename a class, or merge it into another."""

    def rename(gallery: Gallery) -> Gallery:
        if gallery.has(wish.name) and gallery.has(wish.to) and not wish.merge:
            existing = gallery.called(wish.to)
            if existing != gallery.called(wish.name):
                raise HTTPException(
                    409, f'there is a class {existing!r} already; send "merge": true to merge the two, or another name'
                )
        return gallery.renamed(wish.name, wish.to)

    response.headers[UNDO] = str(await service.change(rename))


@router.delete("/classes", status_code=204)
async def remove_class(service: Taught, name: Name, response: Response) -> None:
    """Remove a class and all its images."""
    response.headers[UNDO] = str(await service.change(lambda gallery: gallery.without_class(name)))


@router.get("/classes/images")
async def list_images(service: Taught, name: Name) -> Images:
    """Return the images of a class, the oldest first."""
    gallery = (await service.model()).gallery
    wanted = gallery.index_of(name)
    images = [
        ImageOut(id=number, item=shown_name(item, number))
        for number, item, index in zip(gallery.ids.tolist(), gallery.items, gallery.classes.tolist(), strict=True)
        if index == wanted
    ]
    return Images(label=gallery.names[wanted], images=images)


@router.get("/images/{number}", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def image(service: Taught, number: int) -> Response:
    """Return an image as the encoder saw it, as PNG."""
    gallery = (await service.model()).gallery
    gallery.row(number)  # raises NotHereError if there is no such image
    try:
        content = await run_in_threadpool(service.taught.image(number).read_bytes)
    except FileNotFoundError:
        raise NotHereError(f"image {number} has lost its picture, which was deleted from the model's folder") from None
    headers = {"cache-control": "private, max-age=31536000, immutable"}  # a number is never given to another image
    return Response(content, media_type="image/png", headers=headers)


@router.patch("/images/{number}", status_code=204)
async def move_image(service: Taught, number: int, wish: Move, response: Response) -> None:
    """Move an image to another class, which may be new."""
    response.headers[UNDO] = str(await service.change(lambda gallery: gallery.moved(number, wish.to)))


@router.delete("/images/{number}", status_code=204)
async def remove_image(service: Taught, number: int, response: Response) -> None:
    """Remove an image. A class without images is removed too."""
    response.headers[UNDO] = str(await service.change(lambda gallery: gallery.without([number])))


@router.post("/undo", status_code=204)
async def undo(
    service: Taught, change: Annotated[int, Query(description="the header metarep-undo of the change's response")]
) -> None:
    """Undo one of the last changes. Its images are as they were before, and later changes stay."""
    await service.undo(change)
