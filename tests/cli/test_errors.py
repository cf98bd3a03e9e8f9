"""What a user can get wrong, or find broken, is one clear MetarepError; and public names are what they say."""

import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import metarep
from metarep.cli import _Notes, main
from metarep.cli.advice import worded
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.encoders import Conv4, Encoder, Preprocess
from metarep.errors import Advice, Call, DataError, MetarepError, Slot, unknown
from metarep.experiments.job import Job, train_settings
from metarep.experiments.readings import CollapseWarning
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.start import describe
from metarep.methods import ProtoNet, build_method
from metarep.weights.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from metarep.weights.record import RunRecord
from metarep.weights.shipped import open_run

Make = Callable[..., Encoder]


def test_every_public_name_is_itself_whatever_was_imported_before() -> None:
    """A submodule of the same name must not come between: ``from metarep import train, evaluate`` in any order."""
    for home in metarep._HOME.values():
        import_module(home)
    for name in metarep.__all__:
        assert isinstance(getattr(metarep, name), ModuleType) == (name == "losses"), name


def test_an_unknown_name_offers_the_nearest() -> None:
    assert str(unknown("fruit", "aple", ["apple", "pear"])) == (
        "unknown fruit 'aple'; did you mean 'apple'? Known: apple, pear"
    )
    assert str(unknown("fruit", "xyz", ["apple"])) == "unknown fruit 'xyz'. Known: apple"
    with pytest.raises(AttributeError, match="no attribute 'prototypes'"):
        _ = metarep.prototypes


def saved(path: Path, encoder: Encoder) -> Path:
    save_checkpoint(path / "model.safetensors", ProtoNet(encoder), RunRecord("protonet"), [])
    return path / "model.safetensors"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "a sweep needs at least one setting to try; name one by --over"),
        (["--over", "seed=1,2"], "a seed is not a setting to choose"),
        (["--over", "lr=1e-4,1e-3", "--trials", "0"], "trials must be a number above 0, not 0"),
        (["--over", "lr=1e-4,1e-3"], "metarep sweep needs optuna"),
    ],
)
def test_wrong_arguments_are_said_before_an_extra_is_asked_for(
    given: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [*sys.modules]:
        if name.startswith(("optuna", "metarep.experiments.sweep.")) and name != "metarep.experiments.sweep.space":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["sweep", "protonet", *given]) == 2
    assert words in capsys.readouterr().err


def test_an_interrupted_fit_promises_only_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metarep.cli.fit.find_classes", stop)
    for flags in ([], ["--tune"]):
        assert main(["fit", "photos", "--out", "moths", *flags]) == 130
        assert capsys.readouterr().err == "metarep: interrupted\n"
    Path(".moths.unfinished").touch()
    assert main(["fit", "photos", "--out", "moths", "--tune"]) == 130
    assert capsys.readouterr().err == "metarep: interrupted; the same command goes on from there\n"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_checkpoint_is_a_clear_error(small_encoder: Make, tmp_path: Path, share: float) -> None:
    path = saved(tmp_path, small_encoder())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MetarepError, match=r"model.safetensors is damaged or was not written by metarep"):
        load_checkpoint(path)


def test_a_changed_header_is_a_clear_error_whatever_is_missing(small_encoder: Make, tmp_path: Path) -> None:
    encoder = small_encoder()
    tensors = {name: value.contiguous() for name, value in ProtoNet(encoder).state_dict().items()}
    whole: dict[str, Any] = {
        "method": "protonet", "settings": {}, "format": FORMAT, "encoder": encoder.arch,
        "preprocess": asdict(encoder.preprocess), "seen": [],
    }  # fmt: skip
    path = tmp_path / "model.safetensors"

    def write(header: Any, weights: dict[str, torch.Tensor] = tensors) -> None:
        save_file(weights, path, {"metarep": json.dumps(header)})

    write(whole)
    load_checkpoint(path)
    for missing in whole:
        write({name: value for name, value in whole.items() if name != missing})
        with pytest.raises(MetarepError, match=r"model.safetensors"):
            load_checkpoint(path)
    for part, value in (
        ("format", FORMAT + 1), ("encoder", {"name": "conv4", "width": 8}), ("encoder", {"width": 16}),
        ("preprocess", {"size": 5}), ("settings", {"no": 1}), ("method", "none"), ("encoder", {"name": "mine"}),
        ("seen", [None]), ("seen", "all"),
    ):  # fmt: skip
        write({**whole, part: value})
        with pytest.raises(MetarepError):
            _ = load_checkpoint(path).method
    write(["not a dictionary"])
    with pytest.raises(MetarepError, match=r"model.safetensors"):
        load_checkpoint(path)
    write(whole, dict(list(tensors.items())[1:]))
    with pytest.raises(MetarepError, match=r"model.safetensors"):
        load_checkpoint(path)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(MetarepError, match="damaged or was not written by metarep: it is not a safetensors file"):
        load_checkpoint(path)


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MetarepError, match=r"there is no file .*none.safetensors"):
        open_run(tmp_path / "none.safetensors")
    with pytest.raises(MetarepError, match="is not a run folder; if it holds photographs, measure a model"):
        open_run(tmp_path)
    (tmp_path / "settings.json").touch()  # of a training that has no checkpoint yet
    with pytest.raises(MetarepError, match="holds no trained model yet"):
        open_run(tmp_path)


def test_a_failed_write_leaves_the_old_checkpoint(
    small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, small_encoder(seed=1))
    before = path.read_bytes()

    def full(_: Any, partial: Path, *__: Any) -> None:
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metarep.machine.files.save_file", full)
    with pytest.raises(MetarepError, match=r"could not be written: .*No space left"):
        saved(tmp_path, small_encoder(seed=2))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_an_encoder_that_cannot_be_rebuilt_says_so(preprocess: Preprocess, tmp_path: Path) -> None:
    with pytest.raises(MetarepError, match=r"unknown encoder 'Mine'\. If it is a module of your own"):
        load_checkpoint(saved(tmp_path, Encoder(Conv4(1, width=4), preprocess, {"name": "Mine"})))


def test_another_encoder_in_the_same_folder_is_refused(tmp_path: Path, drawings: Any) -> None:
    for encoder in ({"name": "conv4", "width": 8}, {"name": "conv4", "width": 16}):
        job = Job("protonet", encoder=encoder)
        record = describe(job, drawings[0], train_settings(job, drawings[0]), {}, "float32")
        if encoder["width"] == 8:
            run = RunFolder(tmp_path, record, [])
            with run.held():
                run.save_state({}, {"step": 1})
            continue
        with pytest.raises(MetarepError, match=r"holds a run with encoder.width = 8, not 16"):
            RunFolder(tmp_path, record, [])


def test_arrays_that_are_no_images() -> None:
    with pytest.raises(DataError, match=r"must be uint8 with values 0 to 255, not torch.float64"):
        ImageBank.from_arrays(np.zeros((3, 8, 8)))
    for shape in ((8, 8), (3, 2, 8, 8), (0, 8, 8), (1, 1, 1, 8, 8)):
        with pytest.raises(DataError, match="images must have shape"):
            ImageBank.from_arrays(np.zeros(shape, dtype=np.uint8))


def test_a_read_only_array_is_no_reason_to_warn(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 8, 8), dtype=np.uint8))
    bank = ImageBank.from_arrays(np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert len(bank) == 3


def test_labels_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="two classes are called 'a'"):
        Labels(torch.tensor([0, 1]), ("a", "a"), ("a", "b"))
    with pytest.raises(DataError, match="1 class names but 2 keys"):
        Labels(torch.tensor([0]), ("a",), ("a", "b"))
    for classes in ([0, 2], [-1, 0]):
        with pytest.raises(DataError, match="class numbers must lie in 0 to 1"):
            Labels(torch.tensor(classes), ("a", "b"), ("a", "b"))
    with pytest.raises(DataError, match="class numbers must lie"):
        Labels(torch.tensor([0]), (), ())


def test_methods_know_their_settings(small_encoder: Make) -> None:
    with pytest.raises(MetarepError, match="unknown setting of triplet 'margine'; did you mean 'margin'"):
        build_method("triplet", small_encoder(), {"margine": 0.1})


def test_advice_is_worded_for_whoever_reads_it() -> None:
    fit = Call("ModelFolder.create", "fit", Slot("PHOTOS"), out=Path("my moths"))
    error = DataError("x is bad", advice=["mend it", Advice("set {skip_bad} or {depth}", skip_bad=True, depth=12)])
    assert str(error) == "x is bad; mend it, or set skip_bad=True or depth=12"
    assert worded(error) == "x is bad; mend it, or set --skip-bad or --depth 12"
    assert (error.message, len(error.advice)) == ("x is bad", 2)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert worded(MetarepError("no model", advice=Advice("call {fit}", fit=fit))).endswith(
        "call metarep fit PHOTOS --out 'my moths'"
    )
    assert worded(MetarepError("{braces} of a path", advice="{these} too")) == "{braces} of a path; {these} too"


def test_the_command_line_words_the_advice_of_warnings_too(capsys: pytest.CaptureFixture[str]) -> None:
    note = _Notes()
    note(CollapseWarning("it has collapsed", advice=Advice("try a smaller {lr}", lr=...)))
    assert capsys.readouterr().err == "metarep: note: it has collapsed; try a smaller --lr\n"
