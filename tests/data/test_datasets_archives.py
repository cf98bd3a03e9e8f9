"""The registry of data sets, and zip archives that are hostile."""

import zipfile
from pathlib import Path

import pytest

from metarep.data.datasets import DATASETS, about, load_dataset
from metarep.data.datasets.archives import open_zip, read_entry
from metarep.data.datasets.lists import split_list
from metarep.errors import DataError, MetarepError


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(MetarepError, match="did you mean 'omniglot'"):
        load_dataset("omnigloth")
    with pytest.raises(MetarepError, match="unknown split 'tset'; did you mean 'test'"):
        load_dataset("omniglot", "tset")
    with pytest.raises(MetarepError, match="did you mean 'vinyals'"):
        load_dataset("omniglot:vinials")
    with pytest.raises(DataError, match="'x' was given"):
        load_dataset("fc100:x")
    with pytest.raises(DataError, match="fixed tasks and no splits"):
        load_dataset("omniglot-runs")


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_what_it_is_in_one_line(name: str) -> None:
    assert 20 < len(about(name)) < 160
    assert "\n" not in about(name)


@pytest.mark.parametrize(("name", "counts"), [("cifar_fs", (64, 16, 20)), ("fc100", (60, 20, 20))])
def test_cifar_lists_cut_the_hundred_classes(name: str, counts: tuple[int, ...]) -> None:
    parts = [split_list(name)[part] for part in ("train", "val", "test")]
    assert tuple(map(len, parts)) == counts
    assert len(set().union(*parts)) == 100


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "C:\\x", "a\\..\\..\\x", "..\\x"])
def test_an_entry_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DataError, match="would leave its folder"), open_zip(tmp_path / "a.zip"):
        pass


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(100_000))
    with pytest.raises(DataError, match="claims 100,000 bytes"), open_zip(tmp_path / "a.zip") as archive:
        read_entry(archive, "a.png", largest=99_999)
