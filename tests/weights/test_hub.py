"""Models and runs on the Hub: pushed to a server on this machine, loaded elsewhere, and refused if changed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import TOKEN, Hub, blob, serving
from pairs import learned
from PIL import Image
from serving import served

from metarep import FewShotClassifier, HubWarning, load_learner, load_representation, pull, push
from metarep.cli import main
from metarep.encoders import Preprocess, build_encoder
from metarep.errors import MetarepError
from metarep.methods import build_method
from metarep.model.folder import ModelFolder
from metarep.model.model import Model
from metarep.model.multi_label.folder import MultiLabelFolder
from metarep.weights.checkpoint import save_checkpoint
from metarep.weights.frozen import load_to_measure
from metarep.weights.hub.contents import LABELS, MANIFEST, MOST
from metarep.weights.hub.fetch import fetch
from metarep.weights.record import DataRecord, RunRecord

huggingface_hub = pytest.importorskip("huggingface_hub")
pytestmark = [
    pytest.mark.filterwarnings("ignore::metarep.weights.hub.fetch.HubWarning"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # of the client's own upload
]
MOTHS, RUN = "hf:ann/moths", "hf:ann/run"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A server, an empty cache, and a token."""
    from huggingface_hub import constants

    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "tokens"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model folder, with six images of two classes and a card."""
    torch.manual_seed(0)
    encoder = build_encoder("conv4", Preprocess((16, 16), 1, (0.5,), (0.5,)), width=4).eval()
    folder = ModelFolder.create(tmp_path_factory.mktemp("honest") / "moths", Model(encoder, {"name": "prototypes"}))
    names = [f"{number}.png" for number in range(6)]
    folder.learn(stripes(6), ["rows", "columns"] * 3, names)
    folder.calibrate()
    return folder.path


@pytest.fixture
def moths(honest: Path, tmp_path: Path) -> Path:
    """A copy of the model folder, which a test may change."""
    return shutil.copytree(honest, tmp_path / "moths")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small run folder, with a saved state beside its weights."""
    torch.manual_seed(0)
    method = build_method("protonet", build_encoder("conv4", Preprocess((16, 16), 1, (0.5,), (0.5,)), width=4), {})
    record = RunRecord("protonet", encoder={"name": "conv4", "width": 4}, data=DataRecord("glyphs", "train", 16))
    path = tmp_path / "run"
    save_checkpoint(path / "model.safetensors", method, record, ["0" * 12], ["0" * 12])
    (path / "settings.json").write_text(json.dumps(record.as_dict()))
    (path / "state.safetensors").write_bytes(b"what resuming needs")
    return path


def stripes(count: int, seed: int = 0) -> Any:
    images = torch.randint(0, 60, (count, 1, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    images[0::2, :, ::4], images[1::2, :, :, ::4] = 255, 255
    return images.numpy()


def test_a_model_is_pushed_loaded_elsewhere_and_answers_alike(hub: Hub, moths: Path, tmp_path: Path) -> None:
    pushed = push(moths, MOTHS)
    repo = hub.repos["ann/moths"]
    assert set(repo.files) == {".gitattributes", "README.md", "encoder.safetensors", "gallery.safetensors", MANIFEST}
    assert set(pushed.files) == set(repo.files) - {".gitattributes"}
    assert pushed.kept == 6, "the images stay here"
    assert "load('hf:ann/moths')" in repo.files["README.md"].decode()
    with pytest.warns(HubWarning, match="hf:ann/moths is hf:ann/moths@.* now; this longer name loads the same"):
        there = FewShotClassifier.load(MOTHS)
    here = FewShotClassifier.load(moths)
    new = stripes(8, seed=1)
    assert (there.predict_proba(new) == here.predict_proba(new)).all()
    assert set(there.predict(new)) == {"rows", "columns"}
    (commit,) = [sha for sha, files in repo.commits.items() if "encoder.safetensors" in files]
    assert pushed.name == f"{MOTHS}@{commit}" == ModelFolder.open(Path(MOTHS)).origin
    assert load_representation(MOTHS).name == pushed.name, "so the model that is made of it says which commit it was"


@pytest.mark.slow
def test_a_model_of_several_labels_is_pushed_loaded_and_pulled(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    here, name = learned(tmp_path, range(4)), "hf:ann/scenes"
    assert main(["push", "model", name]) == 0
    out = capsys.readouterr().out
    files = hub.repos["ann/scenes"].files
    assert set(files) == {".gitattributes", "README.md", "encoder.safetensors", LABELS, MANIFEST}
    manifest = json.loads(files[MANIFEST])["files"]
    assert manifest[LABELS]["sha256"] == hashlib.sha256(files[LABELS]).hexdigest()
    assert "MultiLabelFolder.open('hf:ann/scenes')" in files["README.md"].decode()
    assert f"  {LABELS}: {len(files[LABELS]):,} bytes" in out
    query = stripes(3)
    want = here.model.answer(here.model.prepare(query))
    there = MultiLabelFolder.open(name).model
    assert there.answer(there.prepare(query)) == want
    commit = out.split("next: metarep predict ")[1].split()[0]
    assert MultiLabelFolder.open(Path(commit)).origin == commit
    for command in (["predict", name, "train-ring-0.png"], ["card", commit]):
        assert main(command) == 0
        assert "ring" in capsys.readouterr().out
    for command in (["add", commit, "train.csv"], ["remove", commit, "ring"]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert f"make a model folder of your own with metarep pull {commit}" in error
    with pytest.raises(MetarepError, match="several labels an image, and this needs a model of one class an image"):
        ModelFolder.open(Path(name))
    assert main(["pull", name, "--out", "copy"]) == 0
    assert "next: metarep predict copy IMAGE" in capsys.readouterr().out
    assert main(["remove", "copy", "cross"]) == 0
    copy = MultiLabelFolder.open("copy").model
    assert copy.names == ("ring",)
    assert copy.scores(copy.prepare(query))[:, 0].equal(there.scores(there.prepare(query))[:, 1])
    hub.served[LABELS] = changed_bytes(files[LABELS])
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(MetarepError, match=f"{LABELS} of hf:ann/scenes.* is not the file that was pushed"):
        MultiLabelFolder.open(name)


def test_a_run_is_pushed_without_what_only_resuming_needs(hub: Hub, run: Path) -> None:
    push(run, RUN, card="# mine\n")
    files = hub.repos["ann/run"].files
    assert set(files) == {".gitattributes", "README.md", "model.safetensors", "settings.json", MANIFEST}
    assert files["README.md"] == b"# mine\n"
    images = torch.from_numpy(stripes(4))
    assert torch.equal(load_learner(RUN).embed(images), load_learner(run).embed(images))
    assert load_to_measure(RUN).record.method == "protonet"
    with pytest.raises(MetarepError, match="is a run or an encoder and not a model"):
        ModelFolder.open(Path(RUN))


def test_the_newest_push_is_loaded_and_the_old_commit_stays(hub: Hub, moths: Path) -> None:
    first = push(moths, MOTHS, images=True)
    assert first.kept == 0
    assert "images/0.png" in hub.repos["ann/moths"].files
    folder = ModelFolder.open(moths)
    folder.rename("rows", "lines")
    second = push(moths, MOTHS)
    assert "images/0.png" not in hub.repos["ann/moths"].files, "what this push has not is removed"
    assert push(moths, MOTHS).name == second.name, "nothing has changed"
    assert ModelFolder.open(Path(first.name)).model.gallery.names == ("rows", "columns")
    assert ModelFolder.open(Path(first.name)).image(0).is_file()
    assert ModelFolder.open(Path(MOTHS)).model.gallery.names == ("lines", "columns")
    assert ModelFolder.open(Path(f"{MOTHS}@main")).origin == second.name


def test_a_model_of_the_hub_cannot_be_changed_but_its_copy_can(hub: Hub, moths: Path, tmp_path: Path) -> None:
    push(moths, MOTHS, images=True)
    folder = ModelFolder.open(Path(MOTHS))
    for change in (lambda: folder.rename("rows", "lines"), lambda: folder.learn(stripes(1), ["rows"], ["x"])):
        with pytest.raises(MetarepError, match="is a copy from the Hub, which cannot be changed; make a model folder"):
            change()
    folder.calibrate()
    with served(folder) as server:
        answer = server.delete("/classes", params={"name": "rows"})
        assert answer.status_code == 503, "as for a folder on a disk that can only be read"
        assert "is a copy from the Hub, which cannot be changed" in answer.text
    pull(MOTHS, tmp_path / "copy")
    copy = ModelFolder.open(tmp_path / "copy")
    copy.rename("rows", "lines")
    assert copy.image(0).is_file()
    assert not copy.image(0).is_symlink()
    assert folder.model.gallery.names == ("rows", "columns")
    with pytest.raises(MetarepError, match="is there already; choose another folder"):
        pull(MOTHS, tmp_path / "copy")


def test_offline_the_cache_is_enough_after_one_download(hub: Hub, moths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = push(moths, MOTHS).name
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MetarepError, match="hf:ann/moths is not in the cache, and HF_HUB_OFFLINE is set; unset it"):
        fetch(MOTHS)
    with pytest.raises(MetarepError, match="HF_HUB_OFFLINE is set, so nothing can be sent"):
        push(moths, MOTHS)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    fetch(MOTHS)
    asked = len(hub.requests)
    assert fetch(name).name == name
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch(MOTHS).name == fetch(name).name == name
    assert len(hub.requests) == asked, "neither a commit in the cache nor HF_HUB_OFFLINE asks the server"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_out_of_order_is_replaced_by_the_cache(hub: Hub, moths: Path, status: int) -> None:
    name = push(moths, MOTHS).name
    hub.answers["^/api/models"] = status
    with pytest.raises(MetarepError, match=f"answers {status} for hf:ann/moths; try again later"):
        fetch(MOTHS)
    hub.answers.clear()
    fetch(MOTHS)
    hub.answers["^/api/models"] = status
    with pytest.warns(HubWarning, match="the Hub cannot be reached; .* is in the cache and used"):
        assert fetch(MOTHS).name == name


def test_a_hub_that_nobody_answers_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MetarepError, match=r"127.0.0.1:9 cannot be reached .*; try again later"):
        fetch(MOTHS)


def changed_bytes(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("name", ["encoder.safetensors", "gallery.safetensors", MANIFEST, "README.md"])
def test_a_file_that_is_not_the_listed_one_is_refused(hub: Hub, moths: Path, name: str) -> None:
    push(moths, MOTHS)
    hub.served[name] = changed_bytes(hub.repos["ann/moths"].files[name])
    with pytest.raises(MetarepError, match=f"{name} of hf:ann/moths.* is not the file that was pushed"):
        fetch(MOTHS)


def test_a_file_that_is_longer_than_listed_is_refused(hub: Hub, moths: Path) -> None:
    push(moths, MOTHS)
    hub.served[MANIFEST] = hub.repos["ann/moths"].files[MANIFEST] + b" " * 10_000
    with pytest.raises(MetarepError, match=r"hf:ann/moths.* is not the file that was pushed|cannot be loaded from"):
        fetch(MOTHS)


@pytest.mark.parametrize("name", ["encoder.safetensors", "gallery.safetensors"])
def test_a_file_that_was_exchanged_on_the_hub_is_refused(hub: Hub, moths: Path, name: str) -> None:
    push(moths, MOTHS)
    files = hub.repos["ann/moths"].files
    hub.put("ann/moths", files | {name: changed_bytes(files[name])})
    with pytest.raises(MetarepError, match=f"{name} of hf:ann/moths.* is not the file that was pushed"):
        fetch(MOTHS)
    hub.put(
        "ann/moths", {each: content for each, content in files.items() if each != name} | {"model.safetensors": b""}
    )
    with pytest.raises(MetarepError, match="is not in its manifest, so it was not pushed with the others"):
        fetch(MOTHS)


def test_a_copy_in_the_cache_that_was_changed_is_refused(hub: Hub, moths: Path) -> None:
    found = fetch(push(moths, MOTHS).name)
    path = (found.folder / "encoder.safetensors").resolve()
    path.write_bytes(changed_bytes(path.read_bytes()))
    with pytest.raises(MetarepError, match=f"is not the file that was pushed.*; delete {path}, .*and load it again"):
        fetch(found.name)
    path.unlink()
    assert fetch(found.name) == found


def test_an_encoder_of_another_library_is_checked_by_the_hash_of_the_hub(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (run / "model.safetensors").read_bytes()
    hub.put("bob/net", {"model.safetensors": weights, "pytorch_model.bin": b"a pickle", "run.py": b"", "x/y.png": b""})
    found = fetch("hf:bob/net")
    assert found.files == ("model.safetensors",)
    assert not any(request.startswith("GET") and "pytorch_model" in request for request in hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_representation("hf:bob/net").name == found.name
    path = found.weights.resolve()
    path.write_bytes(changed_bytes(path.read_bytes()))
    with pytest.raises(MetarepError, match=r"model.safetensors of hf:bob/net.* is not the file that was pushed"):
        fetch("hf:bob/net")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"pytorch_model.bin": b"", "a.pkl": b""},
            r"no safetensors, but pickles \(a.pkl, pytorch_model.bin\), which can",
        ),
        ({"README.md": b"# hello"}, "holds no model and no run; a model has encoder.safetensors"),
        ({"gallery.safetensors": b""}, "holds no model and no run"),
        ({"model.safetensors": b"", MANIFEST: b"{"}, "metarep.json of hf:bob/net.* is damaged"),
        ({"model.safetensors": b"", MANIFEST: b"[" * 100_000}, "damaged: its JSON is nested too deeply"),
        ({"model.safetensors": b"", MANIFEST: b'{"format": 2}'}, "its format is 2 and not 1"),
        (
            {"model.safetensors": b"", MANIFEST: b'{"format":1,"files":{"../../x":{"size":1,"sha256":"0"}}}'},
            r"it names '../../x'",
        ),
        (
            {"model.safetensors": b"", MANIFEST: b'{"format":1,"files":{"model.safetensors":{"size":"1","sha256":0}}}'},
            "a size or a hash is of another type",
        ),
        (
            {
                "model.safetensors": b"",
                MANIFEST: b'{"format":1,"files":{"settings.json":{"size":1,"sha256":"0"},'
                b'"model.safetensors":{"size":0,"sha256":"%s"}}}' % hashlib.sha256().hexdigest().encode(),
            },
            "settings.json of hf:bob/net.* is missing",
        ),
        ({"model.safetensors": b"", "settings.json": b" " * (MOST["settings.json"] + 1)}, "at most 4,194,304 are read"),
    ],
)
def test_a_repository_that_holds_something_else_is_refused(
    hub: Hub, files: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    hub.put("bob/net", files)
    with pytest.raises(MetarepError, match=message):
        fetch("hf:bob/net")


def test_a_pickle_in_the_name_of_safetensors_is_refused_by_the_reader(hub: Hub) -> None:
    import pickle

    hub.put("bob/net", {"model.safetensors": pickle.dumps({"weights": [1.0]} | {"more": list(range(1000))})})
    with pytest.raises(MetarepError, match="safetensors"):
        load_representation("hf:bob/net")


@pytest.mark.parametrize("name", ["../../../escaped.safetensors", "/tmp/escaped.json", "images/../../x.png", "a\0b"])
def test_a_file_name_that_leads_elsewhere_is_not_fetched(hub: Hub, moths: Path, tmp_path: Path, name: str) -> None:
    push(moths, MOTHS)
    hub.more = [{"rfilename": name, "size": 3, "blobId": blob(b"bad")}]
    before = set(tmp_path.parent.rglob("*escaped*"))
    assert name not in fetch(MOTHS).files
    assert set(tmp_path.parent.rglob("*escaped*")) == before


def test_a_link_that_leads_out_of_the_cache_is_refused(hub: Hub, moths: Path, tmp_path: Path) -> None:
    found = fetch(push(moths, MOTHS).name)
    (found.folder / "gallery.safetensors").unlink()
    (found.folder / "gallery.safetensors").symlink_to(moths / "gallery.safetensors")
    with pytest.raises(MetarepError, match=r"gallery.safetensors of .* is a link that leads out of the cache"):
        fetch(found.name)
    (moths / "gallery.safetensors").rename(tmp_path / "elsewhere")
    (moths / "gallery.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MetarepError, match="is a link that leads out of the folder; put the file itself there"):
        push(moths, "hf:ann/other")
    assert "ann/other" not in hub.repos


@pytest.mark.slow
def test_a_download_that_broke_off_goes_on(hub: Hub, moths: Path) -> None:
    name = push(moths, MOTHS).name
    hub.cut = {"encoder.safetensors"}
    assert fetch(MOTHS).name == name
    assert not hub.cut


def test_half_a_download_is_not_taken_for_a_whole_one(hub: Hub, moths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = push(moths, MOTHS).name
    hub.answers["resolve/.*/encoder.safetensors"] = 404
    with pytest.raises(MetarepError, match="answers 404"):
        fetch(MOTHS)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MetarepError, match="is not in the cache"):
        fetch(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.answers.clear()
    assert fetch(name).name == name


def test_a_model_without_a_card_is_loaded(hub: Hub, moths: Path) -> None:
    push(moths, MOTHS)
    files = dict(hub.repos["ann/moths"].files)
    del files["README.md"]
    hub.put("ann/moths", files)
    assert ModelFolder.open(Path(MOTHS)).model.gallery.names == ("rows", "columns")
    hub.put("ann/moths", files | {"README.md": b"# edited on the page"})
    assert "README.md" in fetch(MOTHS).files


def test_who_may_read_and_write(hub: Hub, moths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert push(moths, MOTHS, private=True).private
    hub.put("ann/open", {".gitattributes": b""})
    with pytest.raises(MetarepError, match="hf:ann/open exists and everybody can see it, so nothing was sent"):
        push(moths, "hf:ann/open", private=True)
    assert set(hub.repos["ann/open"].files) == {".gitattributes"}
    with pytest.raises(MetarepError, match=r"there is no model ann/none on http.*; check the name, or log in"):
        fetch("hf:ann/none")
    with pytest.raises(MetarepError, match="hf:ann/moths has no revision v9; check its name"):
        fetch(f"{MOTHS}@v9")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_stranger")
    with pytest.raises(MetarepError, match=r"refuses the token|is not for everybody"):
        push(moths, MOTHS)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(MetarepError, match=r"there is no model ann/moths on .*, or it is not for everybody"):
        fetch(MOTHS)
    with pytest.raises(MetarepError, match="hf:ann/moths cannot be written without a token of the Hub; log in"):
        push(moths, MOTHS)


@pytest.mark.parametrize(
    ("path", "name", "message"),
    [
        ("moths", "hf:moths", "'hf:moths' is no name on the Hub; write hf:USER/NAME"),
        ("moths", "ann/moths", "'ann/moths' is no name on the Hub"),
        ("moths", "hf:../../etc", "is no name on the Hub"),
        ("moths", "hf:ann/moths@" + "0" * 40, "names a revision, and the Hub gives each push its own; leave @... out"),
        ("none", MOTHS, "none does not exist; give a model folder or a run folder"),
        (".", MOTHS, "holds no model and no run"),
    ],
)
def test_what_cannot_be_pushed(hub: Hub, moths: Path, path: str, name: str, message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        push(moths.parent / path, name)
    assert hub.repos == {}


def test_a_damaged_model_is_not_pushed(hub: Hub, moths: Path) -> None:
    (moths / "encoder.safetensors").write_bytes(b"\x80\x04 a pickle, it seems")
    with pytest.raises(MetarepError, match=r"encoder.safetensors"):
        push(moths, MOTHS)
    assert hub.repos == {}


def test_the_missing_extra_is_named(moths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (lambda: push(moths, MOTHS), lambda: load_representation(MOTHS)):
        with pytest.raises(MetarepError, match=r"needs huggingface_hub: pip install 'metarep\[hub\]'"):
            use()


def test_the_command_line(hub: Hub, moths: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warnings.simplefilter("default", HubWarning)
    Image.fromarray(stripes(1)[0, 0]).save(tmp_path / "new.png")
    assert main(["push", str(moths), MOTHS, "--json"]) == 0
    name = json.loads(capsys.readouterr().out)["name"]
    assert main(["predict", MOTHS, str(tmp_path / "new.png")]) == 0
    said = capsys.readouterr()
    assert ": rows " in said.out
    assert f"note: {MOTHS} is {name} now" in said.err
    assert main(["card", name]) == 0
    assert "2 classes, 6 images" in capsys.readouterr().out
    assert main(["add", MOTHS, str(tmp_path / "new.png"), "--to", "rows"]) == 2
    assert f"metarep pull {name} --out MODEL" in capsys.readouterr().err
    assert main(["pull", name, "--out", str(tmp_path / "copy")]) == 0
    assert main(["push", MOTHS, "hf:ann/other"]) == 2
    assert "is on the Hub already" in capsys.readouterr().err


LOAD = "import sys; from metarep.model.folder import ModelFolder; from pathlib import Path\n"
LOAD += "print(ModelFolder.open(Path(sys.argv[1])).model.gallery.names)"


@pytest.mark.slow
def test_two_processes_load_the_same_model_at_once(hub: Hub, moths: Path, tmp_path: Path) -> None:
    push(moths, MOTHS)
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    started = [
        subprocess.Popen([sys.executable, "-c", LOAD, MOTHS], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [each.communicate(timeout=120)[0].strip() for each in started] == ["('rows', 'columns')"] * 2
    assert [each.returncode for each in started] == [0, 0]
