"""Banks on disk: mapped shards give the same pixels as a tensor, are made piece by piece, and are read ahead."""

import ctypes
import mmap
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import fill
from torch import Generator

from metarep import BankWriter, ProtoNet, TrainSettings, load_dataset
from metarep.data.augment import preset
from metarep.data.banks import decoded_shard, workers, writer
from metarep.data.banks.decoded_shard import Job, decode_shard
from metarep.data.banks.mapped import RANDOM, MappedImages, _advise, map_file
from metarep.data.banks.read_ahead import ReadAhead, placed, read_ahead
from metarep.data.batch import Batch, BatchShape, LabelledBatch, LabelledViewBatch, TaskBatch, ViewBatch
from metarep.data.batches import draw_batch
from metarep.data.datasets import folder
from metarep.data.datasets.options import LeftOutWarning, Options
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.encoders import Preprocess, preprocess
from metarep.errors import DataError, MetarepError
from metarep.experiments import training

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 3, 6, 8), dtype=np.uint8))
LABELS = Labels.of([f"class {row // 12}" for row in range(60)])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))


def mapped(pixels: torch.Tensor = PIXELS, *cuts: int) -> ImageBank:
    """The same images in several parts."""
    return ImageBank(MappedImages([part.numpy() for part in pixels.tensor_split(cuts or (7, 8, 31))]))


def test_parts_give_the_pixels_of_one_tensor() -> None:
    bank, generator = mapped(), Generator().manual_seed(0)
    assert (len(bank), bank.channels, bank.size) == (60, 3, (6, 8))
    for index in (torch.randint(60, (4, 9), generator=generator), torch.tensor([59]), torch.zeros(0, dtype=torch.long)):
        assert torch.equal(bank.pixels(index), PIXELS[index])
    assert torch.equal(bank.images, PIXELS)
    assert torch.equal(torch.cat(list(bank.chunks(11))), PIXELS)
    for start, stop in ((0, 60), (7, 8), (5, 33), (31, 32)):
        assert torch.equal(bank.between(start, stop).images, PIXELS[start:stop])
    assert torch.equal(
        ImageBank.join([bank.between(40, 60), bank.between(3, 9)]).images, PIXELS[[*range(40, 60), *range(3, 9)]]
    )
    with pytest.raises(IndexError, match="rows 0 to 60 of a bank of 60 images"):
        bank.pixels(torch.tensor([0, 60]))


def test_a_grey_shard_in_a_bank_of_colour_is_repeated() -> None:
    grey = PIXELS[:7, :1]
    bank = ImageBank(MappedImages([grey.numpy(), PIXELS[7:].numpy()]))
    expected = torch.cat([grey.expand(-1, 3, -1, -1), PIXELS[7:]])
    assert torch.equal(bank.pixels(torch.tensor([3, 20, 0])), expected[[3, 20, 0]])
    assert torch.equal(bank.between(0, 5).images, expected[:5]), "a part of it alone has colour too"


def test_mean_and_deviation_do_not_depend_on_how_images_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Preprocess.of(ImageBank(PIXELS))
    assert Preprocess.of(mapped()) == whole
    monkeypatch.setattr(preprocess, "AT_ONCE", 7 * PIXELS[0].numel())
    pieces = Preprocess.of(mapped())
    assert pieces.mean == pytest.approx(whole.mean, abs=1e-6)
    assert pieces.std == pytest.approx(whole.std, rel=2e-3)  # of a population and of a sample


def test_a_bank_is_written_class_by_class_and_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD", 10 * PIXELS[0].numel())  # 10 images in a shard, 12 in a class
    with BankWriter(tmp_path / "bank") as bank:
        for number, part in enumerate(("train", "test", "train", "val", "train")):
            images = PIXELS[12 * number : 12 * number + 12]
            bank.add(f"class {number}", images[:5], split=part)
            bank.add(f"class {number}", images[5:], split=part, key="unused")
    assert len(list((tmp_path / "bank").glob("*.npy"))) == 6
    name = f"bank:{tmp_path / 'bank'}"
    whole, train = load_dataset(name, "all"), load_dataset(name, "train")
    assert torch.equal(whole.bank.images, PIXELS)
    assert whole.labels.names == LABELS.names
    assert torch.equal(whole.labels.classes, LABELS.classes)
    assert train.labels.names == ("class 0", "class 2", "class 4")
    assert torch.equal(train.bank.images, torch.cat([PIXELS[:12], PIXELS[24:36], PIXELS[48:]]))
    assert len(set(whole.labels.keys)) == 5
    assert all(key.startswith("bank:") and len(key) == 21 for key in whole.labels.keys)
    with pytest.raises(DataError, match=r"has images of 6 x 8 pixels, not of size 8; prepare another bank"):
        load_dataset(name, size=8)
    with (
        pytest.raises(MetarepError, match=r"there is something at .*bank already; remove it"),
        BankWriter(tmp_path / "bank"),
    ):
        pass
    shard = next(iter((tmp_path / "bank").glob("*.npy")))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"bank is damaged: .*npy holds"):
        load_dataset(name)


def test_a_writer_refuses_what_is_no_bank(tmp_path: Path) -> None:
    with BankWriter(tmp_path / "bank") as bank:
        bank.add("a", PIXELS[:2], split="train")
        bank.add("b", PIXELS[:2], split="train")
        with pytest.raises(DataError, match="class 'a' was added before other classes, or to another split"):
            bank.add("a", PIXELS[:2], split="train")
        with pytest.raises(DataError, match=r"class 'c' has images of shape \(3, 6, 6\), and those before \(3, 6, 8\)"):
            bank.add("c", PIXELS[:2, :, :, :6], split="train")
        with pytest.raises(DataError, match="class 'c' has the split 'tests'; give one of train, val, test"):
            bank.add("c", PIXELS[:2], split="tests")
    with (
        pytest.raises(DataError, match="has no images; add those of at least one class"),
        BankWriter(tmp_path / "none"),
    ):
        pass
    with pytest.raises(DataError), BankWriter(tmp_path / "none") as bank:
        bank.add("a", PIXELS[:2].float(), split="train")
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError, match=r"'nowhere' is not the folder of a bank: it has no bank.json"):
        load_dataset("bank:nowhere")


SMALL = Options(size=12, skip_bad=True)


@pytest.mark.slow
def test_files_are_decoded_by_processes_as_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "photos"
    fill(root, "abcdefgh")
    (root / "c" / "1.png").write_bytes(b"no picture")
    with pytest.warns(LeftOutWarning):
        whole = folder.load(str(root), "all", SMALL)
    for name, value in (("FEW", 0), ("LEAST", 5), ("SHARD", 5 * 3 * 12 * 12)):
        monkeypatch.setattr(workers, name, value)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "other"))
    steps: list[tuple[int, int]] = []
    with pytest.warns(LeftOutWarning), workers.following(lambda *done: steps.append(done)):
        parts = folder.load(str(root), "all", SMALL)
    assert steps[-1] == (24, 24)
    assert len(steps) == 5
    assert isinstance(parts.bank.stored, MappedImages)
    assert torch.equal(parts.bank.images, whole.bank.images)
    assert (parts.labels.names, parts.labels.keys) == (whole.labels.names, whole.labels.keys)
    made = next(path for path in (tmp_path / "other").iterdir() if path.is_dir())
    assert {path.suffix for path in made.iterdir()} == {".npy", ".json"}
    assert len(list(made.iterdir())) == 6, "five shards and the manifest; nothing that only the making needed"


def test_what_is_done_before_a_kill_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, numbers = tmp_path / "photos", []
    fill(root, "abcdefgh")
    monkeypatch.setattr(workers, "LEAST", 5)
    monkeypatch.setattr(workers, "SHARD", 5 * 3 * 12 * 12)

    def dying(job: Job) -> None:
        numbers.append(job.number)
        if numbers == [0, 1, 2]:
            decoded_shard.write_shard(Path(job.folder) / f"{job.number:06d}.npy", PIXELS[:2].numpy())  # torn: no record
            raise KeyboardInterrupt
        decode_shard(job)

    monkeypatch.setattr(workers, "decode_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        folder.load(str(root), "all", SMALL)
    part = folder.load(str(root), "all", SMALL)
    assert numbers == [0, 1, 2, 2, 3, 4]
    monkeypatch.undo()
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "other"))
    assert torch.equal(part.bank.images, folder.load(str(root), "all", SMALL).bank.images)


def test_a_process_that_ends_is_named_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.sys, "executable", "/bin/false" if os.path.exists("/bin/false") else "false")
    jobs = [Job(str(tmp_path), number, [(f"{number}.png", f"a/{number}.png")], (8, 8), {}, False) for number in (0, 1)]
    with pytest.raises(DataError, match=r"a process ended while it decoded 1 files from a/(\d).png to a/\1.png"):
        list(workers._in_processes(jobs.__getitem__, [0, 1]))


@pytest.mark.parametrize("eats", [TaskBatch, LabelledBatch, ViewBatch, LabelledViewBatch])
def test_batches_are_the_same_when_they_are_read_ahead(eats: type) -> None:
    shape, augment = BatchShape(ways=3, shots=2, queries=2, tasks=2, images=8), preset("views-32")
    read: list[torch.Tensor] = []

    class Counted(MappedImages):
        def pixels(self, rows: torch.Tensor, *, pinned: bool = False) -> torch.Tensor:
            read.append(rows)
            return super().pixels(rows, pinned=pinned)

    bank = ReadAhead(ImageBank(Counted([PIXELS[:9].numpy(), PIXELS[9:].numpy()])))
    here, there = Generator().manual_seed(1), Generator().manual_seed(1)

    def draw(bank: ImageBank, generator: Generator) -> Batch:
        return draw_batch(eats, bank, LABELS, shape, augment, generator)

    for step in range(6):
        one = draw(ImageBank(PIXELS), here)
        other = draw(bank, there)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.rows, other.rows)
        read_ahead(bank, draw, there)
        assert torch.equal(here.get_state(), there.get_state())
        if step == 3:
            assert len(read) <= 5, "each batch is read once, and perhaps the next one already"
            torch.rand(1, generator=here)  # as a step with DropBlock draws
            torch.rand(1, generator=there)
    assert bank.expecting
    for _ in range(9):
        draw(bank, there)
        if bank.expecting:
            read_ahead(bank, draw, there)
        torch.rand(1, generator=there)
    assert not bank.expecting, "if steps draw random numbers, reading ahead would be in vain"


@pytest.mark.skipif(platform.system() != "Linux", reason="the page cache is looked at as on Linux")
def test_images_are_fetched_into_the_page_cache_and_others_are_not(tmp_path: Path) -> None:
    images, side = 4096, 64  # one page an image
    shard = writer.write_shard(tmp_path / "0.npy", np.zeros((images, 1, side, side), np.uint8))
    with open(tmp_path / shard.file, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    bank = MappedImages([map_file(tmp_path / shard.file, (images, 1, side, side))])
    _advise(bank.parts, RANDOM)
    if resident(bank.parts[0])[100:].any():  # the head was read above
        pytest.skip("this file system keeps its files in memory")
    rows = torch.tensor([4000, 7, 2000])
    bank.fetch(rows)
    deadline = time.monotonic() + 10
    while not resident(bank.parts[0])[rows].all():
        assert time.monotonic() < deadline, "the images were not read"
        time.sleep(0.01)
    assert resident(bank.parts[0]).sum() < 100, "nothing else is read"


def resident(part: np.ndarray) -> np.ndarray:
    """Whether the page that begins before each image is in the page cache."""
    first = part.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    size = part.ctypes.data + part.nbytes - first
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), pages) == 0
    starts = part.ctypes.data - first + part[0].nbytes * np.arange(len(part))
    return (np.frombuffer(pages, np.uint8)[starts // mmap.PAGESIZE] & 1).astype(bool)


def test_a_training_from_disk_equals_one_from_memory(
    drawings: tuple[Split, Split], small_encoder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = drawings[0]
    settings = TrainSettings(steps=5, ways=5, shots=1, queries=2, validate_every=5)
    weights = []
    for bank in (split.bank, mapped(split.bank.images, 9, 100, 101)):
        torch.manual_seed(0)
        method = ProtoNet(small_encoder())
        records: list[dict] = []
        monkeypatch.setattr("metarep.data.banks.read_ahead.available_bytes", lambda *_: 1)
        training.train(method, split._replace(bank=bank), settings, watch=records.append)
        weights.append(method.state_dict())
    assert records[0] == {"step": 0, "steps": 5, "images": records[0]["images"]}
    assert records[0]["images"].endswith("GB of images in 4 shards: mapped, and read ahead from disk")
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_images_that_fit_stay_in_the_page_cache() -> None:
    bank, where = placed(mapped(), "cpu")
    assert where == "0.00 GB of images in 4 shards: mapped, and fit into memory"
    assert not isinstance(bank, ReadAhead)


def test_each_class_is_held_by_one_process() -> None:
    split = Split(mapped(), LABELS, "letters")
    shares = [split.share(rank, 2) for rank in range(2)]
    assert [share.labels.names for share in shares] == [LABELS.names[:2], LABELS.names[2:]]
    assert torch.equal(torch.cat([share.bank.images for share in shares]), PIXELS)
    assert all(isinstance(share.bank.stored, MappedImages) for share in shares)
    mixed = Split(ImageBank(PIXELS), Labels(LABELS.classes.flip(0), LABELS.names, LABELS.keys), "letters").share(1, 5)
    assert mixed.labels.classes.tolist() == [0] * 12
    assert torch.equal(mixed.bank.images, PIXELS[36:48])
    with pytest.raises(DataError, match="letters has 5 classes, too few for 6 processes"):
        split.share(0, 6)
