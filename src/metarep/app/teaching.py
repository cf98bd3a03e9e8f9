"""Routes that teach: classes and their images. A change is on disk before it is acknowledged, and can be taken back."""

from typing import Annotated

from fastapi import APIRouter, File, Form, HTTPException, Query, Response, UploadFile
from starlette.concurrency import run_in_threadpool

from metarep.app.limits import shown_name
from metarep.app.schemas import Classes, ClassOut, ImageOut, Images, Learned, Move, Rename, RepeatOut
from metarep.app.service import Served
from metarep.data.class_names import look_alikes
from metarep.errors import NotHereError
from metarep.model.gallery import Gallery

router = APIRouter(tags=["teach"])
UNDO = "metarep-undo"  # header: the number of the change, for POST /undo
Name = Annotated[str, Query(description="of the class")]  # in the query, never in the path: a name may hold a slash


@router.get("/classes")
async def list_classes(service: Served) -> Classes:
    """All classes, the oldest first."""
    gallery = (await service.ask(lambda model, _: model)).gallery
    ids: list[list[int]] = [[] for _ in gallery.names]
    for number, place in zip(gallery.ids.tolist(), gallery.classes.tolist(), strict=True):
        ids[place].append(number)
    alike: dict[str, list[str]] = {name: [] for name in gallery.names}
    for one, other in look_alikes(gallery.names):
        alike[one].append(other)
        alike[other].append(one)
    rows = zip(gallery.names, ids, strict=True)
    return Classes(classes=[ClassOut(name=name, images=len(own), ids=own, alike=alike[name]) for name, own in rows])


@router.post("/classes", status_code=201)
async def add_images(
    service: Served, name: Annotated[str, Form()], files: Annotated[list[UploadFile], File(description="images")]
) -> Learned:
    """Teach a class, new or known, these images: all, or none if one of them cannot be read.

    A picture that the class has already is left out; one that another class has is kept. Both are told as repeats.
    """
    label, ids, found = await service.learn(files, name)
    repeats = [RepeatOut(item=each.item, same_as=each.same_as, label=each.label) for each in found]
    return Learned(label=label, ids=ids, repeats=repeats)


@router.patch("/classes", status_code=204)
async def rename_class(service: Served, wish: Rename, response: Response) -> None:
    """Call a class otherwise."""

    def rename(gallery: Gallery) -> Gallery:
        if gallery.has(wish.name) and gallery.has(wish.to) and not wish.merge:
            there = gallery.called(wish.to)
            if there != gallery.called(wish.name):
                raise HTTPException(409, f"there is a class {there!r} already; with merge they become one")
        return gallery.renamed(wish.name, wish.to)

    response.headers[UNDO] = str(await service.change(rename))


@router.delete("/classes", status_code=204)
async def remove_class(service: Served, name: Name, response: Response) -> None:
    """Forget a class and all its images."""
    response.headers[UNDO] = str(await service.change(lambda gallery: gallery.without_class(name)))


@router.get("/classes/images")
async def list_images(service: Served, name: Name) -> Images:
    """The images of a class, the oldest first."""
    gallery = (await service.ask(lambda model, _: model)).gallery
    here = gallery.place(name)
    own = [
        ImageOut(id=number, item=shown_name(item, number))
        for number, item, place in zip(gallery.ids.tolist(), gallery.items, gallery.classes.tolist(), strict=True)
        if place == here
    ]
    return Images(label=gallery.names[here], images=own)


@router.get("/images/{number}", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def image(service: Served, number: int) -> Response:
    """What the encoder saw of an image, as PNG."""
    gallery = (await service.ask(lambda model, _: model)).gallery
    gallery.row(number)  # which says so if it is not here
    try:
        content = await run_in_threadpool(service.folder.image(number).read_bytes)
    except FileNotFoundError:
        raise NotHereError(f"the picture of image {number} is gone") from None
    headers = {"cache-control": "private, max-age=31536000, immutable"}  # no other image will ever have this number
    return Response(content, media_type="image/png", headers=headers)


@router.patch("/images/{number}", status_code=204)
async def move_image(service: Served, number: int, wish: Move, response: Response) -> None:
    """Put an image into the class that it belongs to."""
    response.headers[UNDO] = str(await service.change(lambda gallery: gallery.moved(number, wish.to)))


@router.delete("/images/{number}", status_code=204)
async def remove_image(service: Served, number: int, response: Response) -> None:
    """Forget an image; a class that loses its last is gone."""
    response.headers[UNDO] = str(await service.change(lambda gallery: gallery.without([number])))


@router.post("/undo", status_code=204)
async def undo(
    service: Served, change: Annotated[int, Query(description="the header metarep-undo of its answer")]
) -> None:
    """Take back one of the last changes: its images are where they were, and what was done since stays."""
    await service.take_back(change)
