"""Routes that teach: classes and their images. A change is on disk before it is acknowledged."""

from typing import Annotated

from fastapi import APIRouter, File, Form, HTTPException, Query, Response, UploadFile
from starlette.concurrency import run_in_threadpool

from metarep.app.limits import clean_name, shown_name
from metarep.app.schemas import Classes, ClassOut, ImageOut, Images, Learned, Move, Rename, RepeatOut
from metarep.app.service import Served
from metarep.errors import NotHereError
from metarep.gallery import Gallery

router = APIRouter(tags=["teach"])
Name = Annotated[str, Query(description="of the class")]  # in the query, never in the path: a name may hold a slash


@router.get("/classes")
async def list_classes(service: Served) -> Classes:
    """All classes, the oldest first."""
    gallery = (await service.ask(lambda model, _: model)).gallery
    ids: list[list[int]] = [[] for _ in gallery.names]
    for number, place in zip(gallery.ids.tolist(), gallery.classes.tolist(), strict=True):
        ids[place].append(number)
    return Classes(
        classes=[ClassOut(name=name, images=len(own), ids=own) for name, own in zip(gallery.names, ids, strict=True)]
    )


@router.post("/classes", status_code=201)
async def add_images(
    service: Served, name: Annotated[str, Form()], files: Annotated[list[UploadFile], File(description="images")]
) -> Learned:
    """Teach a class, new or known, these images: all, or none if one of them cannot be read.

    A picture that the class has already is left out; one that another class has is kept. Both are told as repeats.
    """
    ids, found = await service.learn(files, name)
    repeats = [RepeatOut(item=each.item, same_as=each.same_as, label=each.label) for each in found]
    return Learned(label=clean_name(name), ids=ids, repeats=repeats)


@router.patch("/classes", status_code=204)
async def rename_class(service: Served, wish: Rename) -> None:
    """Call a class otherwise."""
    new = clean_name(wish.to)

    def rename(gallery: Gallery) -> Gallery:
        if new in gallery.names and new != wish.name and not wish.merge:
            raise HTTPException(409, f"there is a class {new!r} already; with merge they become one")
        return gallery.renamed(wish.name, new)

    await service.change(rename)


@router.delete("/classes", status_code=204)
async def remove_class(service: Served, name: Name) -> None:
    """Forget a class and all its images."""
    await service.change(lambda gallery: gallery.without_class(name))


@router.get("/classes/images")
async def list_images(service: Served, name: Name) -> Images:
    """The images of a class, the oldest first."""
    gallery = (await service.ask(lambda model, _: model)).gallery
    own = [
        ImageOut(id=number, item=shown_name(item, number))
        for number, item, place in zip(gallery.ids.tolist(), gallery.items, gallery.classes.tolist(), strict=True)
        if gallery.names[place] == name
    ]
    if not own:
        gallery.without_class(name)  # which says what there is
    return Images(label=name, images=own)


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
async def move_image(service: Served, number: int, wish: Move) -> None:
    """Put an image into the class that it belongs to."""
    new = clean_name(wish.to)
    await service.change(lambda gallery: gallery.moved(number, new))


@router.delete("/images/{number}", status_code=204)
async def remove_image(service: Served, number: int) -> None:
    """Forget an image; a class that loses its last is gone."""
    await service.change(lambda gallery: gallery.without([number]))
