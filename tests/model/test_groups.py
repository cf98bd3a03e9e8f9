"""Images that show the same thing are left out together: groups of lists, of subfolders, and of arrays."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import put
from torch import Generator

from metarep.cli import main
from metarep.data.reading.label_sets import read_label_sets
from metarep.data.reading.labelled_list import read_list
from metarep.errors import DataError, MetarepError
from metarep.model.classifier import FewShotClassifier
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.model.multi_label.folder import MultiLabelFolder
from metarep.model.trust.units import join_groups


def things(classes: int, each: int, images: int, generator: Generator, *, spread: float) -> torch.Tensor:
    """Points of images of things of classes, shape ``(classes, each, images, 8)``; things of a class differ more."""
    middle = 2 * torch.randn(classes, 1, 1, 8, generator=generator)
    thing = spread * torch.randn(classes, each, 1, 8, generator=generator)
    return middle + thing + 0.2 * torch.randn(classes, each, images, 8, generator=generator)


def promised(groups: bool, seed: int) -> tuple[float, float, bool]:
    """The accuracy that is promised for 8 classes of 4 things of 4 images, the real one, and if its interval holds."""
    generator = Generator().manual_seed(seed)
    points = things(8, 44, 4, generator, spread=2.0)
    rows, labels = points[:, :4].flatten(0, 2), [f"class {i}" for i in range(8) for _ in range(16)]
    names = [f"{i // 4}" for i in range(len(rows))] if groups else None
    gallery = Gallery.empty().add(rows, labels, [""] * len(rows), groups=names)
    model = Model(None, {"name": "prototypes"}, gallery)
    asked = points[:, 4:].flatten(0, 2)
    right = model.scores(asked).argmax(-1) == torch.arange(8).repeat_interleave(160)
    real, trust = 100 * right.double().mean().item(), model.trust
    assert trust.accuracy is not None
    assert trust.interval is not None
    return trust.accuracy, real, trust.interval[0] <= real <= trust.interval[1]


def test_what_is_promised_for_new_things_is_true_only_if_groups_are_left_out_together() -> None:
    with_groups = [promised(True, seed) for seed in range(20)]
    without = [promised(False, seed) for seed in range(20)]
    bias = {name: np.mean([p - r for p, r, _ in each]) for name, each in (("with", with_groups), ("", without))}
    assert abs(bias["with"]) < 4 < 8 < bias[""]
    assert sum(holds for *_, holds in with_groups) >= 17
    assert sum(holds for *_, holds in without) <= 10


def test_groups_are_joined_with_near_copies_as_a_search_for_connected_parts_would() -> None:
    generator = Generator().manual_seed(0)
    for _ in range(20):
        copies = torch.randint(0, 12, (20,), generator=generator)
        classes = torch.randint(0, 3, (20,), generator=generator)
        groups = [["", "a", "b", "c"][i] for i in torch.randint(0, 4, (20,), generator=generator).tolist()]
        unit = list(range(20))
        for _ in range(20):
            for i in range(20):
                for j in range(20):
                    own = groups[i] == groups[j] != "" and classes[i] == classes[j]
                    if own or copies[i] == copies[j]:
                        unit[i] = unit[j] = min(unit[i], unit[j])
        order = {each: number for number, each in enumerate(dict.fromkeys(unit))}
        assert join_groups(copies, groups, classes).tolist() == [order[each] for each in unit] or not any(groups)


def test_a_gallery_keeps_the_group_of_each_image() -> None:
    one = Gallery.empty().add(torch.rand(3, 4), ["moth", "moth", "fly"], list("abc"), groups=["x", "", "y"])
    more = one.add(torch.rand(1, 4), ["fly"], ["d"])
    assert more.grouped == ("x", "", "y", "")
    assert more.without([0]).grouped == ("", "y", "")
    assert more.without([0]).restored(more.only([0]), more.names).grouped == more.grouped
    assert more.moved(0, "fly").grouped == more.renamed("fly", "moth").grouped == more.grouped
    with pytest.raises(MetarepError, match="1 image and 2 groups do not match; give one group for each image"):
        one.add(torch.rand(1, 4), ["fly"], ["e"], groups=["x", "y"])


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of three things of three images, and one image of no thing."""
    monkeypatch.chdir(tmp_path)
    for label in ("ring", "cross"):
        for number in range(9):
            put(tmp_path / "photos" / label / f"thing {number // 3}" / f"{number}.png")
        put(tmp_path / "photos" / label / "9.png")
    return tmp_path / "photos"


def fitted(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["fit", *flags, "--out", "model", "--encoder", "omniglot-protonet"]) == 0
    return capsys.readouterr().out


def test_subfolders_are_groups_if_asked_for(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = fitted(capsys, "photos", "--group-subfolders")
    assert "by leaving 20 images out, one group, or image without a group, of every class at a time" in out
    folder = ModelFolder.open(Path("model"))
    assert sorted(set(folder.model.gallery.grouped)) == ["", "thing 0", "thing 1", "thing 2"]
    assert "20 images of the model left out" in (card := (folder.path / "README.md").read_text())
    assert "near copies together, and 18 images by their groups" in card
    put(photos.parent / "more" / "ring" / "thing 0" / "new.png")
    assert main(["add", "model", "more/ring", "--group-subfolders", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"] == 3
    gallery = ModelFolder.open(Path("model")).model.gallery
    assert (gallery.grouped[-1], gallery.counts.tolist()) == ("thing 0", [10, 11])


def test_classes_of_one_group_cannot_be_tested(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ring", "cross"):
        for number in range(3):
            put(photos.parent / "alone" / name / "only" / f"{number}.png")
    assert main(["fit", "alone", "--group-subfolders", "--out", "model", "--encoder", "omniglot-protonet"]) == 0
    told = capsys.readouterr()
    assert "no class has a second group to test with" in told.out
    assert "inner folders" not in told.err


def test_a_list_says_in_a_column_what_an_image_shows(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(photos.rglob("*.png"))
    lines = [f"{file.relative_to(photos)},{file.relative_to(photos).parts[0]},{file.parent.name}" for file in files]
    (photos / "list.csv").write_text("\n".join(["path,label,Group", *lines]))
    assert read_list(photos / "list.csv").groups[photos / "ring/thing 1/3.png"] == "thing 1"
    assert "one group, or image without a group," in fitted(capsys, "photos/list.csv")
    assert main(["fit", "photos/list.csv", "--out", "other", "--group-subfolders"]) == 2
    assert "says in a column group what an image shows" in capsys.readouterr().err
    (photos / "list.csv").write_text("path,label,group\nring/9.png,ring,a\n./ring/9.png,ring,b\n")
    with pytest.raises(DataError, match=r"line 3: './ring/9.png' has another group than in line 2; mend the list"):
        read_label_sets(photos / "list.csv")


def test_several_labels_an_image_have_groups_too(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(photos.rglob("*.png"))
    lines = [f"{file.relative_to(photos)},{file.relative_to(photos).parts[0]},{file.parent.name}" for file in files]
    (photos / "list.csv").write_text("\n".join(["path,label,group", *lines]))
    fitted(capsys, "photos/list.csv", "--multi-label")
    model = MultiLabelFolder.open(Path("model")).model
    assert sorted(set(model.groups)) == ["cross", "ring", "thing 0", "thing 1", "thing 2"]
    (photos / "more.csv").write_text("path,label,group\nnew.png,ring|cross,thing 7\n")
    put(photos / "new.png")
    assert main(["add", "model", "photos/more.csv"]) == 0
    assert MultiLabelFolder.open(Path("model")).model.groups[-1] == "thing 7"


def test_nothing_to_group_is_an_error(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ring", "cross"):
        put(photos.parent / "flat" / name / "1.png")
    assert main(["fit", "flat", "--out", "model", "--group-subfolders"]) == 2
    assert "no class of flat has a subfolder, so nothing says which images show the same thing" in (
        capsys.readouterr().err
    )


def test_an_estimator_takes_groups() -> None:
    points = things(3, 4, 4, Generator().manual_seed(0), spread=2.0).flatten(0, 2).numpy()
    labels, groups = np.repeat(["a", "b", "c"], 16), np.tile(np.repeat(np.arange(4), 4), 3)
    plain = FewShotClassifier().fit(points, labels).model_.trust
    grouped = FewShotClassifier().fit(points, labels, groups=groups).model_.trust
    assert plain.accuracy is not None
    assert grouped.accuracy is not None
    assert grouped.accuracy < plain.accuracy
    assert grouped.tested == plain.tested == 48
