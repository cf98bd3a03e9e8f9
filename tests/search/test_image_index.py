"""The index of images on disk: what it finds, and what it keeps when it is stopped."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from metarep.data.drawing.contact_sheet import contact_sheet
from metarep.errors import DataError, MetarepError
from metarep.index import build_index
from metarep.search import additions, image_index
from metarep.search.catalogue import Catalogue, Item
from metarep.search.duplicates import near_duplicates
from metarep.search.image_index import ImageIndex
from metarep.weights.named import load_representation

MODEL = "omniglot-protonet"


def build(path: Path, *places: Path, **more: Any) -> ImageIndex:
    index = ImageIndex.create(path, load_representation(MODEL), **more)
    index.add(places)
    return index


def held(index: ImageIndex) -> dict[str, list[float]]:
    """Vectors by path."""
    items = list(index.items.items.values())
    rows = index.index.vectors([item.id for item in items]).tolist()
    assert len({item.path for item in items}) == len(index)
    return {item.path: row for item, row in zip(items, rows, strict=True)}


def test_it_finds_the_image_and_its_kind(photos: Path, tmp_path: Path) -> None:
    index = build(tmp_path / "an.index", photos)
    assert len(index) == 80
    query = photos / "kind 3" / "4.png"
    (hits,) = index.search([query], 5)
    assert hits[0].path == str(query)
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    right = sum(
        Path(hit.path).parent == file.parent
        for file in sorted(photos.glob("*/0.png"))
        for hit in index.search([file], 5)[0]
    )
    assert right >= 30  # of 40
    below = index.search([query], 3, below=photos / "kind 5")[0]
    assert {Path(hit.path).parent.name for hit in below} == {"kind 5"}


def test_an_opened_index_works_without_the_run_it_came_from(photos: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "photos" / "kind 1" / "1.png", tmp_path / "query.png")
    before = build(tmp_path / "an.index", photos).search([tmp_path / "query.png"], 4)
    os.rename(tmp_path / "an.index", tmp_path / "moved.index")
    assert ImageIndex(tmp_path / "moved.index").search([tmp_path / "query.png"], 4) == before


def test_adding_again_reads_only_what_is_new_or_has_changed(photos: Path, tmp_path: Path) -> None:
    index = build(tmp_path / "an.index", photos / "kind 0", photos / "kind 1")
    changed = photos / "kind 1" / "7.png"
    shutil.copy(photos / "kind 2" / "0.png", changed)
    os.utime(changed, ns=(1, 1))
    added = index.add([photos])
    assert (added.new, added.changed, added.known, len(index)) == (60, 1, 19, 80)
    again = ImageIndex(tmp_path / "an.index")
    assert sorted(held(again)) == sorted(str(file) for file in photos.glob("*/*.png"))
    twins = {hit.path for hit in again.search([changed], 2)[0]}
    assert twins == {str(changed), str(photos / "kind 2" / "0.png")}


def test_removing(photos: Path, tmp_path: Path) -> None:
    index = build(tmp_path / "an.index", photos)
    assert index.remove([photos / "kind 0", photos / "kind 1" / "3.png"]) == 11
    with pytest.raises(MetarepError, match=r"the index holds no image .* and none below it"):
        index.remove([photos / "kind 2", photos / "kind 0"])
    assert len(index) == 69
    (photos / "kind 2" / "1.png").unlink()
    assert index.remove([], missing=True) == 1
    left = ImageIndex(tmp_path / "an.index")
    assert len(left) == 68
    assert not any("kind 0" in path for path in held(left))
    assert left.add([photos]).new == 11


def test_bad_images_are_named_or_left_out(photos: Path, tmp_path: Path) -> None:
    (photos / "kind 4" / "bad.png").write_bytes(b"no image")
    index = ImageIndex.create(tmp_path / "an.index", load_representation(MODEL))
    with pytest.raises(DataError, match=r"kind 4/bad.png is not an image of a known kind.*80 images are in the index"):
        index.add([photos])
    added = ImageIndex(tmp_path / "an.index").add([photos], skip_bad=True)
    assert (added.new, added.known, len(added.bad or [])) == (0, 80, 1)
    again = ImageIndex(tmp_path / "an.index")
    with pytest.raises(DataError, match="there is no file or folder"):
        again.add([photos / "none.png"])
    with pytest.raises(DataError, match=r"bad\.png"):
        again.search([photos / "kind 4" / "bad.png"], 1)


@pytest.mark.slow
def test_another_encoder_kind_or_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    index = build(tmp_path / "an.index", photos / "kind 0")
    pytest.importorskip("faiss", reason="needs metarep[ann]")
    with pytest.raises(MetarepError, match="holds an index with the backend exact, not faiss"):
        ImageIndex.create(tmp_path / "an.index", load_representation(MODEL), "faiss")
    other = load_representation(MODEL)
    next(other.learner.encoder.parameters()).data.mul_(1.001)
    with pytest.raises(MetarepError, match="holds an index with the encoder"):
        ImageIndex.create(tmp_path / "an.index", other)
    with pytest.raises(MetarepError, match=r"holds no index; make one with ImageIndex\.create"):
        ImageIndex(photos)
    ImageIndex(tmp_path / "an.index").add([photos / "kind 1"])
    assert index.add([photos / "kind 1", photos / "kind 2"]).known == 10, "what another has written is read first"
    assert len(index) == 30
    busy = ImageIndex(tmp_path / "an.index").locked()
    with busy, pytest.raises(MetarepError, match="another process is writing"):
        ImageIndex(tmp_path / "an.index").add([photos / "kind 2"])


def _add_all(path: str, photos: str) -> None:
    ImageIndex.create(Path(path), load_representation(MODEL)).add([Path(photos)])


@pytest.mark.slow
def test_killed_again_and_again_it_gets_done(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at any moment; the same call goes on, and ends with what an uninterrupted one has."""
    monkeypatch.setattr(additions, "BATCH", 4)
    monkeypatch.setattr(image_index, "SAVE_EVERY", 0.0)
    whole = held(build(tmp_path / "whole.index", photos))
    path, kills, waits = tmp_path / "an.index", 0, Generator().manual_seed(0)
    for _ in range(30):
        process = multiprocessing.get_context("fork").Process(target=_add_all, args=(str(path), str(photos)))
        process.start()
        deadline = time.monotonic() + 20
        before = _size(path / "items.jsonl")
        while process.is_alive() and _size(path / "items.jsonl") == before and time.monotonic() < deadline:
            time.sleep(0.001)
        process.join(0.03 * float(torch.rand((), generator=waits)))
        if process.exitcode == 0:
            break
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        kills += 1
        if image_index.is_index(path):
            ImageIndex(path)  # whatever happened, it opens
    else:
        _add_all(str(path), str(photos))
    assert kills >= 3
    done = held(ImageIndex(path))
    assert done.keys() == whole.keys()
    torch.testing.assert_close(
        torch.tensor([done[name] for name in whole]), torch.tensor(list(whole.values())), rtol=0, atol=1e-5
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_the_catalogue_passes_over_torn_lines_and_what_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    items = [Item(i, f"/x/{i}\udce9.png", i, i, "d") for i in range(3000)]
    Catalogue(path, []).append(items)
    with path.open("ab") as file:
        file.write(b'{"id": 9999, "pa')
    some = Catalogue(path, [1, 2])
    assert (sorted(some.items), some.next, some.below(Path("/x"))) == ([1, 2], 3000, [1, 2])
    some.append([Item(3000, "/x/new", 1, 1, "d")])
    some.sweep()
    again = Catalogue(path, [2, 3000])
    assert (again.items[2], again.next, path.read_bytes().count(b"\n")) == (items[2], 3001, 3)
    with pytest.raises(MetarepError, match="does not say which image 7 is"):
        Catalogue(path, [2, 7])
    path.write_bytes(b"[]\n" + path.read_bytes())
    with pytest.raises(MetarepError, match="is damaged"):
        Catalogue(path, [2])


def test_duplicates_are_what_a_loop_over_pairs_says() -> None:
    rows = torch.randn(30, 6, generator=Generator().manual_seed(0))
    near = rows[:4].repeat(12, 1) + 0.01 * torch.randn(48, 6, generator=Generator().manual_seed(1))
    index = build_index("exact", 6)
    index.add(torch.arange(78) + 5, torch.cat([rows, near]))
    unit = index.vectors(index.ids())
    close = unit @ unit.T >= 0.99
    reach = close
    for _ in range(7):
        reach = (reach.float() @ close.float()) > 0
    want = {tuple((row.nonzero().flatten() + 5).tolist()) for row in reach}
    groups = near_duplicates(index, 0.99, batch=7)
    assert {tuple(group) for group in groups} == {group for group in want if len(group) > 1}
    assert sum(len(group) for group in groups) == 52
    assert [len(group) for group in groups] == sorted((len(group) for group in groups), reverse=True)
    assert near_duplicates(build_index("exact", 6), 0.5) == []


def test_a_contact_sheet_shows_what_is_there(photos: Path, tmp_path: Path) -> None:
    row = [(str(photos / "kind 0" / "0.png"), ""), (str(photos / "gone.png"), "0.99"), (str(photos / ("x" * 90)), "")]
    contact_sheet([row, row[:1]], tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.size == (480, 404)
        tile = np.asarray(sheet)[16:150, 16:150]
        assert (tile == 0).all(-1).any()  # ink
    with pytest.raises(MetarepError, match="cannot write"):
        contact_sheet([row], photos / "kind 0" / "0.png" / "sheet.png")
