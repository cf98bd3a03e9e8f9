"""What a person does to a model folder in the wrong moment, twice, or with files of every kind."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metarep.cli import main
from metarep.machine.files import read_tensors, write_tensors
from metarep.model.export import export_onnx
from metarep.model.folder import ModelFolder
from metarep.model.repeats import find_repeats

ENCODER = "omniglot-protonet"
pytestmark = [
    pytest.mark.filterwarnings("always::metarep.model.repeats.RepeatWarning"),
    pytest.mark.filterwarnings("always::metarep.data.datasets.options.LeftOutWarning"),
]


def drawing(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (7, 7), dtype=np.uint8)
    return Image.fromarray(noise).resize((28, 28), Image.Resampling.NEAREST)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``photos/moth`` and ``photos/fly``, four images each, below the working directory."""
    monkeypatch.chdir(tmp_path)
    save_photos()
    return Path("photos")


def save_photos() -> None:
    for place, name in enumerate(("moth", "fly")):
        Path("photos", name).mkdir(parents=True)
        for number in range(4):
            drawing(10 * place + number).save(Path("photos", name, f"{number}.png"))


def fit(out: str = "model", *more: str) -> int:
    return main(["fit", "photos", "--out", out, "--encoder", ENCODER, *more])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ``photos``, a ``model`` of them and ``bad.png``, for tests that change nothing."""
    root = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        save_photos()
        fit()
        main(["index", "build", "photos.index", "photos", "--encoder", ENCODER])
        Path("bad.png").write_bytes(b"no image")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.usefixtures("photos")
def test_what_stops_a_fit_leaves_nothing_in_the_way(trouble: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise trouble

    Path("model").mkdir(mode=0o750)
    with monkeypatch.context() as patch:
        patch.setattr(ModelFolder, "_draw", stop)
        assert fit() != 0
    assert sorted(os.listdir()) == ["model", "photos"]
    assert os.listdir("model") == [], "an empty folder of the user's stays"
    for out, left in (("model", "model/.part"), ("another", ".another.part")):
        shutil.copytree("photos", left)  # as a kill -9 would leave it
        assert fit(out) == 0
        assert ModelFolder.open(Path(out)).model.gallery.counts.tolist() == [4, 4]
        assert not Path(left).exists()
    assert sorted(os.listdir()) == ["another", "model", "photos"]
    assert Path("model").stat().st_mode & 0o777 == 0o750


@pytest.mark.slow
@pytest.mark.usefixtures("photos")
def test_others_may_read_what_the_umask_lets_them() -> None:
    before = os.umask(0o002)
    try:
        fit()
        main(["remove", "model", "fly"])
    finally:
        os.umask(before)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in Path("model").glob("*.safetensors")} == {
        "encoder.safetensors": "0o664",
        "gallery.safetensors": "0o664",
    }


@pytest.mark.slow
def test_the_same_picture_counts_once(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    Path("again").mkdir()
    for number in range(4):  # under other names, and from other files
        Image.open(photos / "moth" / f"{number}.png").save(f"again/{number}.bmp")
    drawing(99).save("again/new.png")
    capsys.readouterr()
    assert main(["add", "model", "again", "--to", "moth"]) == 0
    told = capsys.readouterr()
    pair = "again/{0}.bmp is the same picture as photos/moth/{0}.png"
    pairs = "; ".join(map(pair.format, range(3)))
    assert told.err == (
        f"metarep: note: left out: 4 images are the same pictures as others of their class: {pairs}; and 1 more\n"
    )
    assert main(["add", "model", "again/0.bmp", "--to", "moth"]) == 0
    assert capsys.readouterr().err == f"metarep: note: left out: {pair.format(0)}\n"
    assert "added 1 image, 4 there already; now 2 classes, 9 images" in told.out
    main(["add", "model", "again/new.png", "--to", "fly"])
    assert "note: again/new.png in fly is the same picture as again/new.png in moth\n" in capsys.readouterr().err
    main(["add", "model", "again/0.bmp", "again/1.bmp", "--to", "fly"])
    torn = "note: 2 images are the same pictures as ones of another class: again/0.bmp in fly is the same picture as"
    assert torn in capsys.readouterr().err
    assert ModelFolder.open(Path("model")).model.gallery.counts.tolist() == [7, 5]  # fly, moth


def test_copies_are_told_from_what_is_only_alike(tmp_path: Path) -> None:
    import torch

    images = torch.randint(255, (6, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[3], images[5] = images[0], images[2]
    known = [tmp_path / "0.png", tmp_path / "gone.png"]
    Image.fromarray(images[0, 0].numpy()).save(known[0])
    same = torch.ones(6, 2)  # features that tell nothing apart
    assert find_repeats(list(images), same, known, same[:2]) == [0, None, None, 0, None, 4]


@pytest.mark.slow
def test_hidden_and_foreign_files_are_passed_over(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("._0.png", ".trash/1.png", "@eaDir/2.png"):
        (photos / "moth" / name).parent.mkdir(exist_ok=True)
        (photos / "moth" / name).write_bytes(b"no image")
    (photos / "moth" / "5.CR2").write_bytes(b"a photograph")
    drawing(3).save(photos / "loose.png")
    assert fit() == 0
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "metarep: note: passed over: 1 image in no class folder",
        "metarep: note: passed over: 1 .cr2 file of a kind that is not read; save them as JPEG",
    ]
    assert "2 classes, 8 images" in told.out
    assert main(["predict", "model", str(photos / "moth")]) == 0
    assert capsys.readouterr().out.count("looked at") == 4


@pytest.mark.slow
def test_a_few_images_are_tested_although_they_calibrate_nothing(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("moth/2", "moth/3", "fly/2", "fly/3"):
        (photos / f"{name}.png").unlink()
    fit()
    said = capsys.readouterr().out
    assert "by leaving 4 images out, one of every class at a time; 4 are too few to set probabilities by, which" in said
    trust = ModelFolder.open(Path("model")).model.trust
    assert (trust.tested, trust.source) == (4, "leave-one-out")
    assert "2 Omniglot test characters" in trust.calibration
    shutil.rmtree(photos / "fly")
    (photos / "fly").mkdir()
    drawing(7).save(photos / "fly" / "1.png")
    (photos / "moth" / "1.png").unlink()
    fit("alone")
    said = capsys.readouterr().out
    assert "accuracy: unknown, for no class has a second image to test with; somewhere between" in said
    assert "on 2 Omniglot test characters with one image each" in said
    assert "on 2 letters of the embedded glyphs with one image each" in said


@pytest.mark.slow
@pytest.mark.usefixtures("photos")
def test_all_classes_are_removed_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    assert Path("model/confusion.png").is_file()
    before = Path("model/confusion.png").read_bytes()
    assert main(["remove", "model", "fly", "mtoh"]) == 2
    assert "did you mean 'moth'" in capsys.readouterr().err
    assert ModelFolder.open(Path("model")).model.gallery.names == ("fly", "moth")
    assert Path("model/confusion.png").read_bytes() == before
    assert main(["remove", "model", "fly"]) == 0
    assert "there is no second class" in capsys.readouterr().out
    assert not Path("model/confusion.png").exists(), "it is of the images as they were"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["add", "model", "photos/fly/0.png", "--to", ""], "a class needs a name"),
        (["add", "model", "photos/fly/0.png", "--to", "fly\u200b"], "cannot be seen"),
        (["add", "model", "bad.png", "--to", "fly", "--skip-bad"], "none of the 1 image can be read"),
        (["predict", "model", "photos/fly/0.png", "--neighbours", "-1"], "--neighbours must be at least 1, not -1"),
        (["predict", "model", "photos/fly/0.png", "--neighbours", "0"], "--neighbours must be at least 1, not 0"),
        (["predict", "model", "photos", "--labelled", "--neighbours", "2"], "so --neighbours has nothing to say"),
        (["predict", "model", "photos", "--csv", "--neighbours", "2"], "--csv has the nearest image alone, so --neig"),
        (["predict", "model", "photos/fly/0.png", "--device", "cpu"], "there is no flag --device"),
        (["fit", "photos", "--out", "m", "--encoder", ENCODER, "--size", "0"], "size must be at least 1 pixel, not 0"),
        (
            ["fit", "photos", "--out", "m", "--encoder", ENCODER, "--size", "100000"],
            "size must be at most 4,096 pixels",
        ),
        (["fit", "nope.csv", "--out", "m", "--multi-label"], "there is no file nope.csv; check the path"),
        (["fit", "photos", "--out", "m", "--multi-label", "--tune"], "--tune is for models of one class an image"),
        (["fit", "photos", "--out", "m", "--encoder", "w.safetensors", "--arch", "conv4:x"], "the width of conv4"),
        (
            ["fit", "photos", "--out", "m", "--encoder", "model"],
            "model is a model folder and not an encoder; use its encoder with --encoder model/encoder.safetensors, or "
            "add images to the model with metarep add model CLASS/",
        ),
        (
            ["train", "protonet", "--init", "model", "--out", "m"],
            "model is a model folder and not a run folder; measure it with metarep predict model FOLDER --labelled, or "
            "train from its encoder with --encoder model/encoder.safetensors",
        ),
        (["evaluate", "photos.index"], "photos.index is an index and not a run folder; train from its encoder"),
        (["index", "build", "model", "photos", "--encoder", ENCODER], "holds other files"),
        (["index", "build", "new.index", "photoes", "--encoder", ENCODER], "there is no file or folder 'photoes'"),
        (["export", "model", "--torch-export", "photos"], "photos is there already; choose another file or remove it"),
        (["export", "model", "--onnx", "bad.png"], "bad.png is there already; choose another file or remove it"),
        (
            ["export", "model", "--onnx", "new.onnx", "--web", "photos"],
            "photos is there already; choose another folder",
        ),
        (["suggest", "model", "photos", "--out", "next.txt"], "'next.txt' does not end in .png, and PNG is the kind"),
        (["predict", "model", "photos", "--labelled", "--out", "next"], "'next' does not end in .png"),
        (["data", "show", "glyphs", "--out", "tasks.jpg"], "'tasks.jpg' does not end in .png"),
        (["search", "photos.index", "bad.png", "--out", "hits.webp"], "'hits.webp' does not end in .png"),
        (["index", "duplicates", "photos.index", "--out", "twins.pdf"], "'twins.pdf' does not end in .png"),
    ],
)
def test_wrong_input_changes_nothing(
    fitted: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fitted)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.name != ".lock"}
    capsys.readouterr()
    assert main(argv) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.name != ".lock"} == before


@pytest.mark.slow
def test_an_export_that_fails_leaves_what_was_there(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")

    def full(deployed: object, images: object, path: Path, **names: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    fit()
    Path("moths.onnx").write_bytes(b"the last one")
    monkeypatch.setattr("metarep.model.graph.write_onnx", full)
    with pytest.raises(OSError, match="No space"):
        export_onnx(ModelFolder.open(Path("model")).model, Path("moths.onnx"))
    assert Path("moths.onnx").read_bytes() == b"the last one"
    assert sorted(os.listdir()) == ["model", "moths.onnx", photos.name]


@pytest.mark.parametrize("removed", [0, 2])
def test_an_old_trust_of_classes_of_different_sizes_is_measured_anew(photos: Path, removed: int) -> None:
    """It did not allow for the sizes, so its threshold and its accuracy are of other scores."""
    for number in range(removed):
        (photos / "fly" / f"{number}.png").unlink()
    assert fit() == 0
    path = Path("model", "gallery.safetensors")
    tensors, header = read_tensors(path)
    assert header.pop("trust_version") == 2
    now = header["trust"]["scale"]
    header["trust"]["scale"] = 123.0
    write_tensors(path, tensors, header)
    found = ModelFolder.open(Path("model")).model.trust.scale
    assert found == pytest.approx(now if removed else 123.0)
