"""Omniglot: the real archives where METAREP_DATA has them, and small damaged ones."""

import io
import os
import zipfile
from collections.abc import Callable
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarep.data.datasets import Options, load_dataset, omniglot
from metarep.data.datasets.omniglot_runs import load_runs
from metarep.data.split import Split
from metarep.errors import DataError

REAL = os.environ.get("METAREP_DATA")
without = pytest.mark.skipif(not REAL, reason="METAREP_DATA is not set: it names the folder with the official archives")


def real(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that decodes an official archive: seconds, and only where the archive is."""
    return pytest.mark.slow(without(test))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the file, so that the real archives are decoded here, and once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAREP_CACHE", str(place))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own for data, and nothing cached."""
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METAREP_DATA", str(tmp_path))
    return tmp_path


def parts_of(spec: str) -> dict[str, Split]:
    return {part: load_dataset(spec, part) for part in ("train", "val", "test")}


@real
def test_vinyals_has_the_published_classes_and_no_character_twice() -> None:
    parts = parts_of("omniglot")
    assert [len(part.labels.names) for part in parts.values()] == [4112, 688, 1692]
    assert all(part.bank.images.shape == (20 * len(part.labels.names), 1, 28, 28) for part in parts.values())
    assert all(part.labels.counts.unique().tolist() == [20] for part in parts.values())
    keys = [set(part.labels.keys) for part in parts.values()]
    assert [len(each) for each in keys] == [1028, 172, 423]
    assert not any(one & other for one, other in combinations(keys, 2))
    both = load_dataset("omniglot:vinyals", "trainval")
    assert both.name == "omniglot:vinyals/trainval"
    assert torch.equal(both.bank.images[82240:], parts["val"].bank.images)
    assert both.labels.names == parts["train"].labels.names + parts["val"].labels.names


@real
def test_the_turns_are_counter_clockwise_and_of_one_character() -> None:
    part = load_dataset("omniglot", "val")
    pixels = part.bank.images.view(172, 4, 20, 28, 28).numpy()
    for k in range(4):
        np.testing.assert_array_equal(pixels[:, k], np.rot90(pixels[:, 0], k, (-2, -1)))
    assert part.labels.names[4:8] == tuple(f"Hebrew/character02/rot{turn}" for turn in ("000", "090", "180", "270"))
    assert set(part.labels.keys[4:8]) == {"omniglot/Hebrew/character02"}


@real
def test_drawings_are_dark_ink_on_white_and_as_in_the_archive() -> None:
    part = load_dataset("omniglot:lake", "test")
    pixels = part.bank.images.float()
    assert pixels.amin((1, 2, 3)).max() < 128  # every drawing has strokes that one can see
    assert pixels.median() == 255
    assert 5 < (255 - pixels).mean() < 40
    with zipfile.ZipFile(Path(REAL) / "images_evaluation.zip") as archive:  # a slow way to one of them
        name = "images_evaluation/Ge_ez/character03/"
        file = sorted(entry for entry in archive.namelist() if entry.startswith(name))[1 + 7]
        drawing = Image.open(io.BytesIO(archive.read(file))).convert("L").resize((28, 28), Image.Resampling.LANCZOS)
    row = part.labels.names.index("Ge_ez/character03") * 20 + 7
    np.testing.assert_array_equal(part.bank.images[row, 0].numpy(), np.asarray(drawing))


@real
def test_lake_holds_out_five_alphabets_and_cuts_across_vinyals() -> None:
    parts = parts_of("omniglot:lake")
    assert [len(part.labels.names) for part in parts.values()] == [799, 165, 659]
    assert {name.split("/")[0] for name in parts["val"].labels.names} == set(omniglot.LAKE_VALIDATION)
    alphabets = [{name.split("/")[0] for name in part.labels.names} for part in parts.values()]
    assert [len(each) for each in alphabets] == [25, 5, 20]
    assert not any(one & other for one, other in combinations(alphabets, 2))
    assert len(set(load_dataset("omniglot", "train").labels.keys) & set(parts["test"].labels.keys)) == 236


@real
def test_the_runs_show_the_characters_that_their_keys_name() -> None:
    runs = load_runs(Options(size=105))
    assert runs.bank.images.shape == (800, 1, 105, 105)
    assert torch.cat([runs.support, runs.query], 1).flatten().sort()[0].tolist() == list(range(800))
    assert all(sorted(answers) == list(range(20)) for answers in runs.query_y.tolist())
    evaluation = {f"omniglot/{name}" for name in load_dataset("omniglot:lake", "test").labels.names}
    with zipfile.ZipFile(Path(REAL) / "images_evaluation.zip") as archive:
        entries = sorted(archive.namelist())
        for run in range(20):
            assert set(runs.keys[run]) <= evaluation
            for rows, answers in ((runs.support[run], runs.support_y[run]), (runs.query[run], runs.query_y[run])):
                for row, answer in list(zip(rows.tolist(), answers.tolist(), strict=True))[::5]:
                    folder = f"images_evaluation/{runs.keys[run][answer].removeprefix('omniglot/')}/"
                    drawings = [
                        archive.read(entry) for entry in entries if entry.startswith(folder) and entry != folder
                    ]
                    mine = runs.bank.images[row, 0].numpy().tobytes()
                    assert any(Image.open(io.BytesIO(each)).convert("L").tobytes() == mine for each in drawings)


def drawing(number: int, side: int = 105) -> bytes:
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 2, (side, side), dtype=np.uint8) * 255).convert("1", dither=0).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def entries() -> dict[str, bytes]:
    """Two characters as an archive would hold them."""
    names = [f"Runes/character{c:02d}/{c:04d}_{d:02d}.png" for c in (1, 2) for d in range(1, 21)]
    return {name: drawing(number) for number, name in enumerate(names)}


@pytest.fixture
def pack(bare: Path, entries: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes the two archives of an Omniglot that has these two characters in each part, under another alphabet."""
    archives = {}
    for name, alphabet in (("images_background.zip", "Runes"), ("images_evaluation.zip", "Glyphs")):
        digest = sha256()
        for entry, content in sorted(entries.items()):
            digest.update(
                entry.replace("Runes", alphabet).encode() + Image.open(io.BytesIO(content)).convert("L").tobytes()
            )
        archives[name] = (2, digest.hexdigest())
    monkeypatch.setattr(omniglot, "ARCHIVES", archives)

    def make(changed: dict[str, bytes | None] | None = None, top: str = "top/", deflate: bool = False) -> Path:
        for name, alphabet in (("images_background.zip", "Runes"), ("images_evaluation.zip", "Glyphs")):
            content = entries | (changed or {}) if alphabet == "Glyphs" else entries
            kind = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
            with zipfile.ZipFile(bare / name, "w", kind) as archive:
                for entry in sorted(content, reverse=deflate):
                    if content[entry] is not None:
                        archive.writestr(top + entry.replace("Runes", alphabet), content[entry])
        return bare / "images_evaluation.zip"

    return make


def test_a_copy_that_was_zipped_again_passes(pack: Callable[..., Path]) -> None:
    pack()
    first = load_dataset("omniglot:lake", "test", size=20)
    pack({"__MACOSX/notes.txt": b"x"}, top="", deflate=True)
    again = load_dataset("omniglot:lake", "test", size=105)
    assert first.labels.names == again.labels.names == ("Glyphs/character01", "Glyphs/character02")
    np.testing.assert_array_equal(
        again.bank.images[23, 0].numpy(), np.asarray(Image.open(io.BytesIO(drawing(23))).convert("L"))
    )


def test_once_cached_the_archives_are_not_needed(pack: Callable[..., Path]) -> None:
    path = pack()
    load_dataset("omniglot:lake", "test")
    path.unlink()
    assert len(load_dataset("omniglot:lake", "train").bank) == 40


FIRST = "Runes/character01/0001_01.png"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({FIRST: drawing(99)}, "does not hold Omniglot's pixels"),
        (
            {FIRST: drawing(1), "Runes/character01/0001_02.png": drawing(0)},
            "does not hold Omniglot's pixels",
        ),  # swapped
        ({FIRST: None}, "holds 39 drawings instead of 40"),
        ({FIRST: drawing(0, 104)}, "0001_01.png has"),
        ({FIRST: drawing(0)[:60]}, "0001_01.png is not a readable PNG"),
        ({FIRST: b"not a picture"}, "0001_01.png is not a readable PNG"),
        ({"../../Runes/character09/0009_01.png": b""}, "would leave its folder"),
    ],
)
def test_a_damaged_archive_is_refused_by_name(pack: Callable[..., Path], changed: dict, words: str) -> None:
    pack(changed)
    with pytest.raises(DataError, match=words) as caught:
        load_dataset("omniglot")
    assert "images_evaluation.zip" in str(caught.value)


def test_a_half_downloaded_archive_is_refused_by_name(pack: Callable[..., Path]) -> None:
    path = pack()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"images_evaluation\.zip is damaged or half-downloaded"):
        load_dataset("omniglot")
    where = whole.index(drawing(30))
    path.write_bytes(whole[: where + 70] + bytes([whole[where + 70] ^ 255]) + whole[where + 71 :])
    with pytest.raises(DataError, match=r"images_evaluation\.zip is damaged or half-downloaded"):
        load_dataset("omniglot")
