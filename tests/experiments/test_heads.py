"""The newer heads on trained runs: what a checkpoint keeps, what a report says, and where they are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from metarep.cli import main
from metarep.data.augment import preset
from metarep.data.split import Split
from metarep.encoders import keep_feature_means, keep_feature_statistics, keep_view_spread
from metarep.errors import MetarepError
from metarep.experiments.measurement.measure import Setting, measure, pick_learner
from metarep.experiments.measurement.rows import result_row
from metarep.experiments.pseudo_labels import instances
from metarep.experiments.training import train
from metarep.learners import Prototypes, described
from metarep.machine.files import read_tensors, write_tensors
from metarep.methods import ProtoNet, SimCLR
from metarep.model.gallery import Gallery
from metarep.model.head import build_head
from metarep.model.model import Model
from metarep.weights.checkpoint import Checkpoint, load_checkpoint
from metarep.weights.named import load_representation
from metarep.weights.record import DataRecord, RunRecord
from metarep.weights.representation import Representation
from metarep.weights.settings import TrainSettings

SETTINGS = TrainSettings(steps=2, ways=4, shots=1, queries=2)


@pytest.fixture
def trained(drawings: tuple[Split, Split], small_encoder: Any, tmp_path: Path) -> Checkpoint:
    method = ProtoNet(small_encoder(), metric="cosine", temperature=0.1, learn_temperature=True)
    train(method, drawings[0], SETTINGS)
    Checkpoint.of(method, RunRecord("protonet", data=DataRecord("drawings", "train")), []).save(tmp_path / "run")
    return load_checkpoint(tmp_path / "run")


def test_a_training_keeps_the_means_of_its_images(trained: Checkpoint, drawings: Any, tmp_path: Path) -> None:
    encoder: Any = trained.learner.encoder
    kept = encoder.feature_means
    keep_feature_means(encoder, drawings[0].bank)
    assert torch.equal(kept, encoder.feature_means)
    assert "feature_means" not in "".join(read_tensors(tmp_path / "run")[0]), "it is no weight"
    learner: Any = trained.learner
    assert learner.settings["learn_temperature"]
    assert learner.log_temperature.exp().item() != pytest.approx(0.1, rel=1e-6), "it was trained"
    Representation(encoder, "small").save(tmp_path / "encoder.safetensors")
    again: Any = load_representation(str(tmp_path / "encoder.safetensors")).encoder
    assert torch.equal(again.feature_means, kept)


def test_a_file_without_means_is_read_and_centring_says_what_is_missing(trained: Checkpoint, tmp_path: Path) -> None:
    tensors, header = read_tensors(tmp_path / "run")
    del header["feature_means"]
    write_tensors(tmp_path / "old", tensors, header)
    old = load_checkpoint(tmp_path / "old")
    assert pick_learner(old, "prototypes").encoder.feature_means is None
    with pytest.raises(MetarepError, match="conv4 keeps no mean of training features to subtract: its training has"):
        pick_learner(old, "simpleshot")
    for wrong in ([1.0], [[1.0], [2.0]], "means", [["1"] * 16] * 2):
        write_tensors(tmp_path / "bad", tensors, header | {"feature_means": wrong})
        with pytest.raises(MetarepError, match="'feature_means' is not 2 rows of"):
            load_checkpoint(tmp_path / "bad")


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("linear:strength=3,centre=true", "linear:centre=true,strength=3"),
        ("prototypes:metric=euclidean", "prototypes"),  # as by default
        ("prototypes:whiten=0.25", "prototypes:whiten=0.25"),
        ("descent:steps=3", "descent:steps=3, 3 steps"),
        ("descent", "descent, 10 steps"),
        ("bd-cspn", "bd-cspn"),
    ],
)
def test_rows_of_other_settings_have_other_names(trained: Checkpoint, given: str, called: str) -> None:
    learner = pick_learner(trained, given)
    assert learner.called == called
    assert described(pick_learner(trained, called.split(",")[0] if "steps" in called else called)) == described(learner)


def test_a_training_keeps_the_spread_of_its_classes(trained: Checkpoint, drawings: Any, tmp_path: Path) -> None:
    encoder: Any = trained.learner.encoder
    kept = encoder.feature_spread
    keep_feature_statistics(encoder, drawings[0])
    assert torch.equal(kept, encoder.feature_spread)
    Representation(encoder, "small").save(tmp_path / "encoder.safetensors")
    again: Any = load_representation(str(tmp_path / "encoder.safetensors")).encoder
    assert torch.equal(again.feature_spread, kept)
    learner = pick_learner(trained, "averaged:whiten=0.5")
    assert measure(learner, drawings[1], Setting(range(4, 5), range(1, 2), 3, 20)).accuracy > 25
    assert learner.called == "averaged:whiten=0.5"
    tensors, header = read_tensors(tmp_path / "run")
    wrong = [kept[1:], kept.double(), kept.neg(), kept / 0]
    for tensor in wrong:
        write_tensors(tmp_path / "bad", {**tensors, "feature_spread": tensor}, header)
        with pytest.raises(MetarepError, match="tensor 'feature_spread' is not 16 variances and 16 directions"):
            load_checkpoint(tmp_path / "bad")
    del tensors["feature_spread"]
    write_tensors(tmp_path / "old", tensors, header)
    with pytest.raises(
        MetarepError, match="conv4 does not keep how its features differ within classes: its training has"
    ):
        pick_learner(load_checkpoint(tmp_path / "old"), "averaged:whiten=0.5")


@pytest.mark.parametrize("name", ["simclr", "protonet"])
def test_trainings_without_labels_keep_the_spread_of_views(
    name: str, drawings: tuple[Split, Split], small_encoder: Any
) -> None:
    """Also where every image is a class of its own; the classes themselves are never read."""
    split = drawings[0]
    if name == "simclr":
        method: Any = SimCLR(small_encoder())
        train(method, split, TrainSettings(steps=2, images=8, augment="views-drawings"))
    else:
        method = ProtoNet(small_encoder())
        split = split._replace(labels=instances(len(split.bank)))
        train(method, split, TrainSettings(steps=2, ways=4, shots=1, queries=2, augment="views-drawings"))
    encoder = method.learner.encoder
    kept = encoder.feature_spread
    keep_view_spread(encoder, split.bank, preset("views-drawings"))
    assert torch.equal(kept, encoder.feature_spread)


@pytest.mark.slow
def test_reports_and_rows_say_how_queries_are_balanced(trained: Checkpoint, drawings: Any) -> None:
    setting = Setting(range(4, 5), range(1, 2), queries=3, tasks=20)
    said = {}
    for name in ("simpleshot", "augmented:copies=2", "bd-cspn", "descent:head=cosine"):
        for balance in ("balanced", "dirichlet"):
            how = Setting(setting.ways, setting.shots, 3, 20, balance=balance)
            report = measure(pick_learner(trained, name), drawings[1], how)
            row = result_row(trained, "trained", report, "run")
            assert report.balance == row["balance"] == balance
            assert f" a class, {row['protocol']}, running" in str(report)
            said[row["learner"], balance] = row["protocol"]
    assert said == {
        ("simpleshot", "balanced"): "inductive",
        ("simpleshot", "dirichlet"): "inductive, dirichlet",
        ("augmented:copies=2", "balanced"): "inductive",
        ("augmented:copies=2", "dirichlet"): "inductive, dirichlet",
        ("bd-cspn", "balanced"): "transductive, balanced",
        ("bd-cspn", "dirichlet"): "transductive, dirichlet",
        ("descent:head=cosine, 10 steps", "balanced"): "inductive",
        ("descent:head=cosine, 10 steps", "dirichlet"): "inductive, dirichlet",
    }
    with pytest.raises(MetarepError, match="unbalanced queries need tasks of one shape"):
        measure(trained.learner, drawings[1], Setting(range(3, 5), range(1, 2), 3, 20, balance="dirichlet"))
    with pytest.raises(MetarepError, match="tasks within superclasses have balanced queries"):
        Setting(range(3, 4), range(1, 2), 3, 20, balance="dirichlet", within=True)


@pytest.mark.slow
def test_a_model_takes_an_inductive_head_and_refuses_a_transductive_one(drawings: Any, small_encoder: Any) -> None:
    encoder, images = small_encoder(), drawings[0].bank.images[:40]
    keep_feature_means(encoder, drawings[0].bank)
    for name in ("simpleshot", "augmented", "averaged"):
        model = Model(Representation(encoder.eval(), "small"), {"name": name})
        rows = model.prepare(images.numpy())
        model = model.changed(model.gallery.add(rows, ["a"] * 20 + ["b"] * 20, [str(i) for i in range(40)]))
        right = [answer.label for answer in model.answer(rows)] == ["a"] * 20 + ["b"] * 20
        assert model.features.shape == (40, encoder.dim)
        assert right or model.trust.accuracy is not None
    with pytest.raises(MetarepError, match=r"'bd-cspn' is transductive: .* cannot answer for one image alone"):
        build_head(None, {"name": "bd-cspn"})
    assert Gallery.empty().names == ()


@pytest.mark.slow
def test_the_command_line_names_heads_and_refuses_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    command = "evaluate omniglot-protonet --data glyphs --split val --tasks 20 --queries 2 --no-references --json"
    assert main([*command.split(), "--learner", "bd-cspn:confident=2", "--balance", "dirichlet"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["learner"], row["protocol"]) == ("bd-cspn:confident=2", "transductive, dirichlet")
    for flags, message in (
        (["--learner", "bdcspn"], "unknown learner 'bdcspn'; did you mean 'bd-cspn'"),
        (["--learner", "descent:scope=all,head=cosine"], "head=cosine compares features of length 1"),
        (["--balance", "dirichlet", "--queries", "15"], "may get all 75 queries"),
    ):
        assert main([*command.split(), *flags]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert Prototypes.protocol == "inductive"
