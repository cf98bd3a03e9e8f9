"""Several processes at once: fits, indexes and trainings are complete, or refused with a message."""

import multiprocessing
import os
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from racing import at_once

from metarep.cli import main
from metarep.errors import MetarepError
from metarep.experiments.run_folder import RunFolder
from metarep.machine.files import own_folder
from metarep.machine.threads import run_tasks
from metarep.model.folder import ModelFolder
from metarep.search import image_index
from metarep.search.catalogue import Catalogue
from metarep.search.image_index import ImageIndex
from metarep.weights.named import load_representation
from metarep.weights.record import RunRecord

MODEL = "omniglot-protonet"


def test_a_fit_beside_a_fit_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("moth", "fly"):
        Path(f"photos/{name}").mkdir(parents=True)
        Image.fromarray(np.full((20, 20), 200 if name == "fly" else 90, np.uint8)).save(f"photos/{name}/0.png")
    fit = ["fit", "photos", "--out", "my moths", "--encoder", MODEL]
    with own_folder(tmp_path / ".my moths.part"):
        assert main(fit) == 2
    assert "another process is making my moths; wait until it has ended" in capsys.readouterr().err
    assert main(fit) == 0
    assert capsys.readouterr().out.endswith("next: metarep predict 'my moths' IMAGE\n")
    assert main(fit) == 2
    assert "my moths is there already; choose another folder, or add to it with metarep add 'my moths' CLASS/" in (
        capsys.readouterr().err
    )
    Path("other").mkdir()
    Path("other/notes").touch()
    assert main(["fit", "photos", "--out", "other", "--encoder", MODEL]) == 2
    assert capsys.readouterr().err == "metarep: other is there already; choose another folder\n"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    g = np.random.default_rng(0)
    for kind in ("one", "two"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(4):
            pixels = g.integers(0, 255, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / kind / f"{number}.png")
    return tmp_path / "photos"


def test_an_index_is_not_damaged_because_another_process_writes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer removes images, and their lines, between the two files that a reader opens."""
    path = tmp_path / "an.index"
    ImageIndex.create(path, load_representation(MODEL)).add([photos])
    writer, times = ImageIndex(path), list[int]()

    def late(items: Path, ids: Any) -> Catalogue:
        times.append(1)
        if len(times) == 1:
            monkeypatch.setattr(image_index, "Catalogue", Catalogue)
            writer.remove([photos / "one"])
            writer.items.lines = 10_000
            writer.items.sweep()
            monkeypatch.setattr(image_index, "Catalogue", late)
        return Catalogue(items, ids)

    monkeypatch.setattr(image_index, "Catalogue", late)
    reader = ImageIndex(path)
    assert (len(reader), len(reader.items), len(times)) == (4, 4, 2)
    (path / "items.jsonl").write_text("")
    with pytest.raises(MetarepError, match="does not say which image"):
        ImageIndex(path)


def test_an_index_is_begun_by_one(photos: Path, tmp_path: Path) -> None:
    def build(kind: str) -> int:
        with ImageIndex.create(tmp_path / "an.index", load_representation(MODEL)) as index:
            return index.add([photos / kind]).new

    busy = f"another process is writing to {tmp_path / 'an.index'}; wait until it has ended"
    said = at_once(lambda: build("one"), lambda: build("two"))
    assert set(said) <= {4, busy}
    assert len(ImageIndex(tmp_path / "an.index")) == 4 * said.count(4) > 0
    assert build("one") + build("two") == 8 - 4 * said.count(4)


def test_a_training_beside_another_changes_nothing(tmp_path: Path) -> None:
    first, second = (RunFolder(tmp_path, RunRecord("anil", {"turns": turns}), []) for turns in (1, 2))
    with first.held():
        with pytest.raises(MetarepError, match="another process is training in"), second.held():
            pass
        assert '"turns": 1' in (tmp_path / "settings.json").read_text()
        first.save_state({}, {"step": 1})
    with pytest.raises(MetarepError, match=r"holds a run with settings\.turns = 1, not 2"), second.held():
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """Torch's own threads do not exist there, so it uses one; the library's threads are started anew."""
    assert run_tasks(_square, range(3), 2) == [0, 1, 4]
    process = multiprocessing.get_context("fork").Process(target=_in_a_fork)
    process.start()
    process.join(30)
    process.kill()
    assert process.exitcode == 0


def _square(worker: int, item: int) -> int:
    return item * item


def _in_a_fork() -> None:
    torch.set_num_threads(1)
    assert run_tasks(_square, range(3), 2) == [0, 1, 4]


def _main(argv: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("default")
    os._exit(main(argv))


@pytest.mark.slow
def test_two_who_add_the_same_pictures_add_them_once(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    assert main(["fit", str(photos), "--out", str(path), "--encoder", MODEL]) == 0
    g, paths = np.random.default_rng(1), [tmp_path / f"{number}.png" for number in range(3)]
    for each in paths:
        Image.fromarray(g.integers(0, 255, (28, 28), dtype=np.uint8)).save(each)
    add = ["add", str(path), *map(str, paths), "--to", "three"]
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_main, args=(add,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert ModelFolder.open(path).model.gallery.counts.tolist() == [4, 4, 3]
    assert len(os.listdir(path / "images")) == 11


@pytest.mark.slow
def test_fits_that_are_killed_or_meet_leave_a_whole_model(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    context, fit = multiprocessing.get_context("fork"), ["fit", "photos", "--out", "model", "--encoder", MODEL]
    for turn in range(8):
        shutil.rmtree("model", ignore_errors=True)
        if turn % 2:
            Path("model").mkdir()
        three = [context.Process(target=_main, args=(fit,)) for _ in range(3)]
        for process in three:
            process.start()
            time.sleep(0.05 * turn)
        three[0].join(0.1 * turn)
        three[0].kill()
        for process in three:
            process.join(60)
        if not Path("model/gallery.safetensors").exists():  # the killed one was in the way of both
            assert main(fit) == 0
        assert len(ModelFolder.open(Path("model")).model.gallery) == 8
        assert len(os.listdir("model/images")) == 8
    assert {name for name in os.listdir() if name.endswith(".part")} == set()
