"""What a run is, as one value; and what a file of it gives without the method that trained it."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from metarep.data.reading.depth import Depth
from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.encoders import Encoder, computing
from metarep.errors import MetarepError
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.measurement.measure import Setting, measure_all
from metarep.learners import GradientDescent, Prototypes, build_learner, described
from metarep.machine.files import read_tensors
from metarep.methods import METHODS, MoCo, ProtoNet, build_method
from metarep.weights.checkpoint import load_checkpoint, save_checkpoint
from metarep.weights.deployed import learner_of
from metarep.weights.record import DataRecord, RunRecord
from metarep.weights.settings import TrainSettings
from metarep.weights.shipped import load_trained, zoo_names

Make = Callable[..., Encoder]
FULL = RunRecord(
    "moco",
    {"queue": 100},
    {"name": "conv4", "width": 8},
    TrainSettings(steps=7, images=32),
    "bfloat16",
    DataRecord("glyphs", "train", 28, "abc", 40, 2, "simclr", None, Depth.of("12"), True),
    labels="clusters",
    init="simclr",
    name="mine",
)
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    ("protonet", {"metric": "cosine", "temperature": 0.2, "turns": 3}),
    ("siamese", {"loss": "koch"}),
    ("siamese", {"normalise": False, "margin": 2.0}),
    ("triplet", {"normalise": False}),
    ("baseline", {"temperature": 0.3, "classes": 7}),
    ("maml", {"ways": 3, "inner_steps": 2, "scope": "all-but-norms", "rates": "layer"}),
    ("maml", {"normalisation": "transductive", "test_steps": 0}),
    ("anil", {"head": "prototype", "learned_rates": True, "inner_lr": 0.01, "test_steps": 4}),
    ("reptile", {"minibatch": 4, "head": "prototype"}),
]  # fmt: skip


@pytest.mark.parametrize("record", [FULL, RunRecord("protonet"), replace(FULL, data=DataRecord(labels_per_class=5))])
def test_a_record_is_read_as_it_was_written(record: RunRecord) -> None:
    saved = json.loads(json.dumps(record.as_dict()))
    assert RunRecord.read(saved) == record
    assert record.differences(saved) == []


def test_a_record_lists_the_settings_that_differ() -> None:
    for name, was, now, other in (
        ("train.lr", 0.5, FULL.train.lr, replace(FULL, train=replace(FULL.train, lr=0.5))),
        ("data.clusters", 41, FULL.data.clusters, replace(FULL, data=replace(FULL.data, clusters=41))),
        ("settings.queue", 101, FULL.settings["queue"], replace(FULL, settings=FULL.settings | {"queue": 101})),
        ("precision", "float32", FULL.precision, replace(FULL, precision="float32")),
    ):
        assert FULL.differences(other.as_dict()) == [(name, was, now)]
    both = replace(FULL, precision="float32", train=replace(FULL.train, lr=0.5))
    assert [name for name, _, _ in FULL.differences(both.as_dict())] == ["precision", "train.lr"]
    same = replace(
        FULL, data=replace(FULL.data, skip_bad=not FULL.data.skip_bad), train=replace(FULL.train, save_every=7)
    )
    assert FULL.differences(same.as_dict()) == []


def test_what_a_newer_version_has_added_is_passed_over() -> None:
    saved = FULL.as_dict()
    saved |= {"more": 1, "train": saved["train"] | {"more": 1}, "data": saved["data"] | {"more": 1}}
    assert RunRecord.read(saved) == FULL


@pytest.mark.parametrize("name", zoo_names())
def test_a_model_that_ships_has_a_record_and_its_method(name: str) -> None:
    trained = load_trained(name)
    assert name.endswith(trained.record.method)
    assert trained.record.data.split == "trainval"
    assert isinstance(trained.learner, Prototypes)
    assert trained.method.learner is trained.learner


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_the_learner_follows_from_the_method_where_a_file_does_not_say(
    name: str, settings: dict[str, Any], small_encoder: Make, tmp_path: Path
) -> None:
    """As in files of 0.1.0; and the method comes back with all of its weights."""
    method, path = build_method(name, small_encoder(), settings), tmp_path / "model.safetensors"
    save_checkpoint(path, method, RunRecord(name, settings), [])
    tensors, header = read_tensors(path)
    about = header.pop("learner")
    earlier = learner_of(name, settings)
    assert earlier is not None
    assert about == described(build_learner(encoder=small_encoder(), **earlier))
    save_file(tensors, path, {"metarep": json.dumps(header)})
    trained = load_checkpoint(path)
    assert described(trained.learner) == about
    weights = trained.method.state_dict()
    assert weights.keys() == method.state_dict().keys()
    assert all(torch.equal(value, weights[key]) for key, value in method.state_dict().items())


class Own(Prototypes):
    """A learner of somebody's own, which only its method can make."""


class OwnMethod(ProtoNet):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.learner = Own(encoder)


def test_a_learner_of_ones_own_is_made_by_its_method(
    small_encoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "model", OwnMethod(small_encoder()), RunRecord("own"), [])
    with pytest.raises(MetarepError, match="unknown method 'own'"):
        load_checkpoint(tmp_path / "model")
    monkeypatch.setitem(METHODS, "own", OwnMethod)
    assert isinstance(load_checkpoint(tmp_path / "model").learner, Own)


def test_weights_of_another_method_are_refused_when_the_method_is_asked_for(
    small_encoder: Make, tmp_path: Path
) -> None:
    record = RunRecord("moco", {"queue": 32})
    save_checkpoint(tmp_path / "model", MoCo(small_encoder(), queue=64), record, [])
    trained = load_checkpoint(tmp_path / "model")
    assert isinstance(trained.learner, Prototypes)
    with pytest.raises(MetarepError, match=r"the weights are not those of the method moco: .*queue"):
        _ = trained.method


def test_after_an_error_a_learner_measures_as_before(
    small_encoder: Make, drawings: tuple[Split, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = GradientDescent(small_encoder(), ways=3, scope="all", steps=1)
    tasks = draw_tasks(drawings[1].labels, 3, ways=3, shots=1, queries=2, generator=torch.Generator().manual_seed(0))
    before = evaluate(learner, drawings[1].bank, tasks)
    setting = Setting(range(3, 4), range(1, 2), tasks=2, normalisation="transductive")
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[measure_all.__module__], "measure", lambda *_, **__: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            next(measure_all(learner, drawings[1], [setting], references=False))
    with suppress(ZeroDivisionError), learner.using("transductive", 4), computing(learner, "bfloat16"):
        during = learner.normalisation, learner.test_steps, learner.encoder.precision
        raise ZeroDivisionError
    assert during == ("transductive", 4, "bfloat16")
    with pytest.raises(MetarepError, match="test_steps must be at least 0, not -1"), learner.using("running", -1):
        pass
    after = evaluate(learner, drawings[1].bank, tasks)
    assert (after.normalisation, after.learner) == (before.normalisation, before.learner)
    assert torch.equal(after.per_task, before.per_task)
    assert learner.encoder.precision == "float32"


def test_a_learner_without_inner_steps_has_none_to_change(small_encoder: Make) -> None:
    learner = Prototypes(small_encoder())
    with learner.using():
        pass
    wrong = "for learners that take gradient steps, and Prototypes does not; try learner='descent'"
    with pytest.raises(MetarepError, match=wrong), learner.using(test_steps=3):
        pass


ANSWER = """
import sys
from metarep.cli import main
photos, model, image = sys.argv[1:]
assert main(["fit", photos, "--out", model, "--encoder", "omniglot-protonet"]) == 0
assert main(["predict", model, image]) == 0
heavy = ("metarep.methods", "metarep.experiments", "sympy", "torch._dynamo")
print(*sorted(name for name in sys.modules if name.startswith(heavy)))
"""


@pytest.mark.slow
def test_answering_imports_nothing_that_trains_or_compiles(tmp_path: Path) -> None:
    photos, generator = tmp_path / "photos", np.random.default_rng(0)
    for row in range(4):
        (photos / "ab"[row % 2]).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / "ab"[row % 2] / f"{row}.png")
    command = [sys.executable, "-c", ANSWER, str(photos), str(tmp_path / "model"), str(photos / "a" / "0.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "", done.stdout
