"""The page of ``metarep export --web`` without a browser: its files, its arithmetic in node, and what add reads."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from serving import ENCODER, KINDS, drawing

from metarep.app.web import runtime
from metarep.app.web.export import OWN, export_web, page_facts, prototype_scale
from metarep.cli import main
from metarep.data.reading.decode import decode
from metarep.errors import MetarepError
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.weights.named import load_representation

NODE = shutil.which("node")
STRETCH = 4 / 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A model of three kinds of drawings, six of each."""
    path = tmp_path_factory.mktemp("models") / "signs"
    made = ModelFolder.create(path, Model(load_representation(ENCODER), None, Gallery.empty()))
    for kind in KINDS[:3]:
        made.learn([drawing(kind, i) for i in range(6)], [kind] * 6, [f"secret/{kind}{i}.png" for i in range(6)])
    made.calibrate()
    return made


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tarball like that of npm, with two short files that have the names of the runtime's and the right digests."""
    short = {name: f"// {name}".encode() for name in runtime.FILES}
    digests = {name: (target, hashlib.sha256(short[name]).hexdigest()) for name, (target, _) in runtime.FILES.items()}
    monkeypatch.setattr(runtime, "FILES", digests)
    path = tmp_path / runtime.TARBALL
    with tarfile.open(path, "w:gz") as file:
        for name, content in {**short, "other.js": b"1"}.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.slow
def test_the_folder_is_whole_and_its_graph_says_what_the_model_says(
    folder: ModelFolder, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    page = tmp_path / "page"
    assert main(["export", str(folder.path), "--web", str(page), "--runtime", str(packed)]) == 0
    assert f"{page}: 3 classes" in capsys.readouterr().out
    there = {path.name: path.read_bytes() for path in page.iterdir()}
    texts = {name: content.decode() for name, content in there.items() if name.endswith((".js", ".html", ".css"))}
    for name, text in texts.items():
        used = re.findall(r'(?:from|import\(|src=|href=|register\()\s*"\./([\w.]+)"', text)
        assert {each for each in used if each not in there} == set(), name
    assert "VERSION" not in texts["worker.js"]
    kept = json.loads(re.findall(r"const FILES = (.*);", texts["worker.js"])[0])
    assert set(kept) == set(there) - {"worker.js", "LICENCES.txt"}
    assert not any(b"secret" in content for content in there.values()), "no name of an image leaves the model"
    assert "Copyright (c) Microsoft" in there["LICENCES.txt"].decode()

    session = onnxruntime.InferenceSession(page / "model.onnx")
    pixels, rows = next(folder.model.read([drawing(kind, 50) for kind in KINDS]))
    probabilities, _, familiarity, points = session.run(None, {"images": pixels.numpy()})
    answers = folder.model.answer(rows)
    assert probabilities == pytest.approx(np.array([list(each.probabilities.values()) for each in answers]), abs=1e-5)
    assert familiarity == pytest.approx(folder.model.familiar(rows).numpy(), abs=1e-5)
    gallery = folder.model.gallery
    images = torch.cat([next(folder.model.read([folder.image(i)]))[0] for i in gallery.ids.tolist()])
    points = session.run(["points"], {"images": images.numpy()})[0]
    means = np.frombuffer(there["means.bin"], "<f4").reshape(3, -1)
    assert means == pytest.approx(points.reshape(3, 6, -1).mean(1), abs=1e-5), "so classes that are added fit to them"

    assert main(["export", str(folder.path), "--web", str(page), "--runtime", str(packed)]) == 2
    assert "page is there already; choose another folder or remove it" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    folder: ModelFolder, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    page = tmp_path / "page"
    with pytest.raises(MetarepError, match="fewer than two classes"):
        export_web(folder.model.changed(folder.model.gallery.without_class("ring").without_class("cross")), "a", page)
    adapting = Model(load_representation(ENCODER), {"name": "descent", "scope": "all", "steps": 1})
    rows = adapting.prepare([drawing("ring", 0), drawing("cross", 0)])
    with pytest.raises(MetarepError, match="adapts the encoder to the classes, so it cannot be exported as one graph"):
        export_web(adapting.changed(adapting.gallery.add(rows, ["a", "b"], ["a", "b"])), "a", page)
    packed.write_bytes(packed.read_bytes()[:50])
    with pytest.raises(MetarepError, match="damaged"):
        export_web(folder.model, "a", page, packed)
    assert not page.exists()
    assert main(["export", str(folder.path), "--onnx", "a.onnx", "--runtime", str(packed)]) == 2
    assert "--runtime is for the web page; give --web DIR as well" in capsys.readouterr().err


def test_the_runtime_is_found_and_checked(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = runtime.read_runtime(packed)
    assert set(files) == {"ort.js", "ort.wasm"}
    with tarfile.open(packed) as file:
        file.extractall(tmp_path, filter="data")
    installed = tmp_path / "node_modules" / "onnxruntime-web"
    shutil.copytree(tmp_path / "package", installed)
    for place in (tmp_path, tmp_path / "package", tmp_path / "package" / "dist", installed):
        assert runtime.read_runtime(place) == files
    monkeypatch.delenv("METAREP_DATA", raising=False)
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MetarepError) as error:
        runtime.read_runtime()
    assert error.value.worded(lambda name, value: f"--{name} {value}") == (
        f"the page needs onnxruntime-web {runtime.VERSION} (MIT licence, 33 MB), and there is no npm to fetch it with; "
        f"fetch it where npm is, with npm pack {runtime.PACKAGE}, and give the file with --runtime {runtime.TARBALL}"
    )
    monkeypatch.setenv("METAREP_DATA", str(packed.parent))
    assert runtime.read_runtime() == files
    (tmp_path / "package/dist/ort-wasm-simd-threaded.wasm").write_bytes(b"another")
    with pytest.raises(MetarepError, match=r"is damaged or of another version; give the npm package onnxruntime-web@"):
        runtime.read_runtime(tmp_path / "package")
    (tmp_path / "package/dist/ort-wasm-simd-threaded.wasm").unlink()
    with pytest.raises(MetarepError, match=r"has no ort-wasm-simd-threaded\.wasm"):
        runtime.read_runtime(tmp_path / "package")


def test_npm_fetches_the_runtime_once_and_says_why_if_it_cannot(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("METAREP_DATA", raising=False)
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(MetarepError, match=r"npm pack onnxruntime-web@[\d.]+ has failed \(npm error network\)"):
        runtime.read_runtime()
    npm.write_text(f'#!/bin/sh\n[ "$1 $2" = "pack {runtime.PACKAGE}" ] && cp "{packed}" .\n')
    files = runtime.read_runtime()
    npm.write_text("#!/bin/sh\nexit 1\n")
    assert runtime.read_runtime() == files == runtime.read_runtime(packed)


def in_node(script: str, given: Any, tmp_path: Path) -> Any:
    """What a script returns that uses modules of the page; ``given`` is its variable of this name."""
    if NODE is None:
        pytest.skip("there is no node on this machine")
    for name in ("answers.js", "pixels.js", "zip.js"):
        (tmp_path / name).write_bytes((OWN / name).read_bytes())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "given.json").write_text(json.dumps(given))
    start = 'import fs from "node:fs";\nconst given = JSON.parse(fs.readFileSync("given.json"));\n'
    (tmp_path / "run.js").write_text(start + script)
    done = subprocess.run([NODE, "run.js"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_page_scales_and_crops_to_the_same_bytes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    shapes = [(128, 128), (300, 197), (901, 37), (7, 5), (640, 480), (30, 40), (1, 1)]
    if int(PIL.__version__.partition(".")[0]) >= 13:  # which takes the columns of these first
        shapes += [(90, 900), (60, 400), (129, 131), (200, 274)]
    pictures = [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in shapes]
    wanted = [((128, 128), 3), ((28, 28), 1), ((50, 80), 3)]
    given = {
        "wanted": wanted,
        "pictures": [
            {"width": w, "height": h, "data": np.dstack([each, np.full((h, w), 255)]).ravel().tolist()}
            for (w, h), each in zip(shapes, pictures, strict=True)
        ],
    }
    script = """
    import { resize, toChannels } from "./pixels.js";
    const all = given.wanted.map(([size, channels]) =>
      given.pictures.map((each) => Array.from(toChannels(resize(each, size, 4 / 3), channels))));
    console.log(JSON.stringify(all));"""
    for (size, channels), all_of_size in zip(wanted, in_node(script, given, tmp_path), strict=True):
        for picture, shape, pixels in zip(pictures, shapes, all_of_size, strict=True):
            source = Image.fromarray(picture)
            own = decode(source, size=size, channels=channels, name="", stretch=STRETCH)
            assert np.array_equal(np.array(pixels).reshape(own.shape), own), (shape, size)


def test_large_jpegs_are_shrunk_first_as_pillow_does(tmp_path: Path) -> None:
    shapes = [(511, 900), (512, 900), (1023, 1024), (4000, 3000), (255, 255)]
    script = """
    import { draft, reduce } from "./pixels.js";
    const data = Array.from({ length: 60 }, (_, i) => i); // five pixels across, three down
    const small = reduce({ data, width: 5, height: 3 }, 2);
    const sizes = given.map(([width, height]) => draft({ width, height }, [128, 128]));
    console.log(JSON.stringify([sizes, small.width, small.height, Array.from(small.data)]));"""
    scales, width, height, data = in_node(script, shapes, tmp_path)
    for shape, scale in zip(shapes, scales, strict=True):
        content = io.BytesIO()
        Image.new("RGB", shape).save(content, "JPEG")
        opened = Image.open(content)
        opened.draft(None, (256, 256))
        assert opened.size == tuple(-(-side // scale) for side in shape)
    assert (width, height) == (3, 2)
    rows = np.arange(60).reshape(3, 5, 4)[..., :3]
    own = [[rows[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((0, 1)) for x in range(3)] for y in range(2)]
    assert np.array_equal(np.array(data).reshape(2, 3, 4)[..., :3], np.floor(np.array(own) + 0.5))


def test_answers_of_the_page_are_those_of_the_graph_until_something_is_added(
    folder: ModelFolder, tmp_path: Path
) -> None:
    model = folder.model
    familiarity = model.self_test.familiarity
    facts = page_facts(model, "signs")
    new = [model.prepare([drawing(kind, seed)]) for kind, seed in (("comb", 1), ("comb", 2), ("ring", 70))]
    asked = model.prepare([drawing(kind, 50) for kind in KINDS])
    points = [(model.points_of(rows) - familiarity.centre.mean).double().numpy() for rows in (torch.cat(new), asked)]
    shares = [list(each.probabilities.values()) for each in model.answer(asked)]
    given = {
        "model": facts,
        "means": familiarity.prototypes.tolist(),
        "added": [
            {"label": label, "points": row.tolist()}
            for label, row in zip(("comb", "comb", "ring"), points[0], strict=True)
        ],
        "asked": [
            {"probabilities": own, "familiarity": known, "points": row.tolist()}
            for own, known, row in zip(shares, model.familiar(asked).tolist(), points[1], strict=True)
        ],
    }
    script = """
    import { answer, classesWith } from "./answers.js";
    const model = { ...given.model, means: new Float32Array(given.means.flat()) };
    const say = (added) => given.asked.map((each) => answer(model, classesWith(model, added), each));
    console.log(JSON.stringify([say([]), say(given.added)]));"""
    before, after = in_node(script, given, tmp_path)
    for own, told in zip(model.answer(asked), before, strict=True):
        assert told["probabilities"] == own.probabilities
        assert (told["label"], told["known"], tuple(told["label_set"])) == (own.label, own.known, own.label_set)

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    means = familiarity.prototypes.double().numpy()
    sums = np.vstack([means * np.array(facts["counts"])[:, None], points[0][:2].sum(0)])
    sums[facts["classes"].index("ring")] += points[0][2]
    images = torch.tensor([*facts["counts"], 2]).float()
    typical = familiarity.centre.length(torch.tensor(facts["typical"]))
    before_levels = (familiarity.centre.length(images[:3]) / typical).numpy()
    images[facts["classes"].index("ring")] += 1
    levels = (familiarity.centre.length(images) / typical).numpy()
    cosines = unit(points[1]) @ unit(sums).T
    was, now = unit(points[1]) @ unit(means).T * before_levels**0.75, cosines * levels**0.75
    scale = facts["prototype_scale"]
    mass = np.exp(scale * was).sum(1, keepdims=True)
    odds = np.hstack([np.array(shares) * mass * np.exp(scale * (now[:, :3] - was)), np.exp(scale * now[:, 3:])])
    wanted = odds / odds.sum(1, keepdims=True)
    for row, told in zip(wanted, after, strict=True):
        assert list(told["probabilities"].values()) == pytest.approx(row, abs=1e-6)
    like = np.log(np.exp(12 * cosines * levels).sum(1)) / 12
    lengths = np.linalg.norm(points[1], axis=-1) ** facts["root"]
    assert [each["familiarity"] for each in after] == pytest.approx(like / lengths, abs=1e-6)
    assert [each["label"] for each in after] == list(KINDS)
    assert before[3]["label"] != "comb"


def test_the_scale_of_what_is_added_is_calibrated_where_there_are_images_enough(folder: ModelFolder) -> None:
    assert prototype_scale(folder.model) != 12.0
    assert 1e-3 < prototype_scale(folder.model) < 1e3


@pytest.mark.slow
def test_add_reads_what_the_page_saves(folder: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder.path, tmp_path / "signs")
    script = """
    import { zip } from "./zip.js";
    const files = given.map(([name, text]) => [name, new Uint8Array(Buffer.from(text, "base64"))]);
    fs.writeFileSync("added.zip", Buffer.from(await zip(files).arrayBuffer()));
    console.log("1");"""
    pngs = {}
    for seed in range(3):
        pixels = next(folder.model.read([drawing("comb", seed)]))[0][0]
        content = io.BytesIO()
        Image.fromarray(pixels[0].numpy()).convert("RGB").save(content, "PNG")
        pngs[f"images/{seed}.png"] = content.getvalue()
    lines = ["path,label,file", *(f'"{name}","Kämme, ""alt""","a.jpg"' for name in pngs), ""]
    files = {"labels.csv": "\r\n".join(lines).encode(), **pngs}
    given = [[name, base64.b64encode(content).decode()] for name, content in files.items()]
    in_node(script, given, tmp_path)
    assert main(["add", str(tmp_path / "signs"), str(tmp_path / "added.zip")]) == 0
    assert "added 3 images; now 4 classes, 21 images" in capsys.readouterr().out
    gallery = ModelFolder.open(tmp_path / "signs").model.gallery
    assert gallery.names[-1] == 'Kämme, "alt"'
    assert torch.equal(gallery.rows[-3:], folder.model.prepare([drawing("comb", seed) for seed in range(3)]))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/1.png": b""}, "has no labels.csv, so it is not what a page has saved; unpack it and give its folders"),
        ({"labels.csv": b"path,label\n1.png,moth\n"}, "has no '1.png', which its labels.csv names"),
        ({"labels.csv": b"path,label\n"}, "lists no image"),
        ({"labels.csv": b"path,label\n1.png,\n", "1.png": b"x"}, "line 2: '1.png' has no label"),
        ({"labels.csv": b"path,label\n1.png,moth\n", "1.png": b"x"}, "is not an image of a known kind"),
        ({"labels.csv": b"\xff\xff", "1.png": b"x"}, "is not in UTF-8"),
        ({"../labels.csv": b""}, "would leave its folder"),
        (None, "is damaged"),
    ],
)
def test_other_zip_files_are_refused(
    folder: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], files: Any, message: str
) -> None:
    path = tmp_path / "added.zip"
    if files is None:
        path.write_bytes(b"PK\3\4 half a file")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    before = folder.model.gallery.in_words
    assert main(["add", str(folder.path), str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert folder.model.gallery.in_words == before
    assert main(["add", str(folder.path), str(path), "--to", "moth"]) == 2
    assert "--to has nothing to say" in capsys.readouterr().err


def test_a_refusal_says_nothing_of_writing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    single = ModelFolder.create(tmp_path / "single", Model(load_representation(ENCODER), None, Gallery.empty()))
    single.learn([drawing(KINDS[0], i) for i in range(3)], [KINDS[0]] * 3, ["a.png", "b.png", "c.png"])
    single.calibrate()
    assert main(["export", str(single.path), "--onnx", str(tmp_path / "one.onnx")]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith("the model has fewer than two classes, and cannot be exported; add another class first")
