"""A tuned encoder: kept only where images that it has not seen say so, and then a model like any other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from untrained_model import untrained

from metarep import FewShotClassifier, Model
from metarep.cli import main
from metarep.encoders.norm_statistics import batch_norms
from metarep.errors import MetarepError
from metarep.model.folder import ModelFolder
from metarep.model.suggestions import class_needs
from metarep.model.tuning import budget
from metarep.model.tuning.clock import Clock
from metarep.model.tuning.fitting import fit_tail
from metarep.model.tuning.tailored import SHARE
from metarep.model.tuning.tune import tune, tune_model
from metarep.model.tuning.unlabelled import adapt_model
from metarep.model.tuning.verdict import judge
from metarep.weights.own_network import represent

WAYS, SHOTS = 6, 5


@pytest.fixture(scope="module")
def images(letters: tuple[np.ndarray, list[str]]) -> tuple[torch.Tensor, list[str]]:
    """Five images of each of six classes, at 28 px."""
    rows = [12 * way + shot for way in range(WAYS) for shot in range(SHOTS)]
    pixels, names = letters
    own = torch.from_numpy(pixels[rows])
    size = torch.nn.functional.interpolate(own.float(), (28, 28), mode="bilinear", antialias=True)
    return size.round().to(torch.uint8), [names[row] for row in rows]


@pytest.fixture
def better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tuning counts as better, so that what follows from it can be tested on few images."""

    def say(*given: object) -> object:
        from dataclasses import replace

        return replace(judge(*given), kept=True)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("metarep.model.tuning.tune.judge", say)


def test_scores_that_are_better_on_unseen_images_are_kept_and_others_are_not() -> None:
    random = torch.Generator().manual_seed(0)
    classes = torch.arange(4).repeat_interleave(10)
    truth = torch.nn.functional.one_hot(classes, 4).float()
    noise = torch.randn(40, 4, generator=random)
    weak, strong, rows = truth + noise, 3 * truth + noise, torch.arange(40)
    better, worse, same = judge(weak, strong, rows, classes, 5), judge(strong, weak, rows, classes, 5), None
    same = judge(weak, 7 * weak, rows, classes, 5)
    assert (better.kept, worse.kept, same.kept) == (True, False, False), "a scale alone is no gain"
    assert better.gain is not None
    right = [(each.argmax(1) == classes).float().mean().item() * 100 for each in (weak, strong)]
    assert better.gain[0] == pytest.approx(right[1] - right[0], abs=0.01)
    assert better.gain[1] < better.gain[0] < better.gain[2]
    assert str(better).startswith(f"kept: {right[1]:.1f} % of 40 images left out are right, {right[0]:.1f} % without")
    assert str(worse).startswith("not kept, as it is worse: ")


def test_right_answers_decide_and_the_likelihood_between_equals() -> None:
    """``more`` is right once more than ``start``, and so sure where it is wrong that its likelihood is lower."""
    classes = torch.arange(2).repeat_interleave(20)
    start, less = torch.full((40, 2), 0.5), torch.zeros(40, 2)
    start[torch.arange(40), classes] = torch.tensor([0.9] * 35 + [0.1] * 5)
    more = start.clone()
    more[35, 1], more[36:, 1] = 0.9, -9.0
    less[torch.arange(40), classes] = torch.tensor([1.0] * 35 + [-0.1] * 5)
    rows = torch.arange(40)
    assert judge(start, more, rows, classes, 5).kept
    assert not judge(start, more, rows, classes, 5, surely=True).kept
    assert judge(start, less, rows, classes, 5).gain == (0.0, 0.0, 0.0)
    assert judge(start, less, rows, classes, 5).kept
    assert not judge(less, start, rows, classes, 5).kept


def test_an_image_that_is_left_out_twice_counts_once() -> None:
    classes, scores = torch.tensor([0, 1]), torch.eye(2)
    verdict = judge(scores[[0, 1, 1]], scores[[0, 1, 1]], torch.tensor([0, 1, 1]), classes, 2)
    assert verdict.images == 2


@pytest.mark.slow
def test_a_tuning_changes_weights_alike_and_leaves_the_given_encoder_alone(
    images: tuple[torch.Tensor, list[str]], better: None
) -> None:
    model = untrained()
    assert model.representation is not None
    before, shares = model.representation.digest, list[float]()
    first = tune(model.representation, *images, head=model.head, on_progress=shares.append)
    again = tune(model.representation, *images, head=model.head)
    assert model.representation.digest == before == represent(model.representation.encoder).digest
    assert first[0].digest == again[0].digest != before
    assert list(first[0].encoder.body.state_dict()) == list(model.representation.encoder.body.state_dict())
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_norms_get_a_part_of_the_statistics_of_the_images(images: tuple[torch.Tensor, list[str]], better: None) -> None:
    model = untrained()
    assert model.representation is not None
    tuned, _, _ = tune(model.representation, *images, head=model.head)
    before, after = (batch_norms(each.encoder)[0] for each in (model.representation, tuned))
    x = model.representation.encoder.body[0][0](model.representation.encoder.preprocess(images[0]))
    found = torch.lerp(before.running_mean, x.mean((0, 2, 3)), SHARE)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(after.running_mean, found, rtol=1e-4, atol=1e-5)
    assert not after.running_mean.equal(before.running_mean)  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]


@pytest.mark.slow
@pytest.mark.parametrize(
    "costs", [{"view": 9, "pass": 2, "step": 1, "score": 0}, {"view": 1, "pass": 9, "step": 40, "score": 3}]
)
def test_the_time_left_is_true_from_the_first_on(
    costs: dict[str, int], images: tuple[torch.Tensor, list[str]], better: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a time in which each piece of work takes what ``costs`` says, whatever the trunk's part of it is."""
    seconds, clocks = [0.0], list[Clock]()

    class Told(Clock):
        def __init__(self, tell: Callable[[float], None] | None = None) -> None:
            super().__init__(tell, lambda: seconds[0])
            clocks.append(self)

        def finished(self, kind: str, number: int = 1) -> None:
            seconds[0] += costs[kind] * number / 32
            super().finished(kind, number)

    for module in ("tune", "fitting"):
        monkeypatch.setattr(f"metarep.model.tuning.{module}.Clock", Told)
    model, told = untrained(), list[tuple[float, float]]()
    assert model.representation is not None
    tune(model.representation, *images, head=model.head, on_progress=lambda share: told.append((seconds[0], share)))
    assert clocks[0].done == clocks[0].counts
    end = told[-1][0]
    for now, share in told:
        assert now * (1 - share) / share == pytest.approx(end - now, abs=0.05 * end)


@pytest.mark.slow
def test_what_is_not_better_changes_nothing(
    images: tuple[torch.Tensor, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metarep.model.tuning.fitting.RATE", 3.0)  # a tuning that destroys the features
    model = untrained()
    same, verdict = tune_model(model, *images)
    assert same is model
    assert not verdict.kept
    assert verdict.images == WAYS * SHOTS
    assert verdict.folds == 5


def test_single_images_are_never_tuned_without_a_test(images: tuple[torch.Tensor, list[str]]) -> None:
    model, (pixels, labels) = untrained(), images
    same, verdict = tune_model(model, pixels[::SHOTS], labels[::SHOTS])
    assert same is model
    assert str(verdict) == (
        "not tried: no class has a second image to test with, and 20 are needed to tell whether it helps"
    )
    few = [row for row in range(len(labels)) if row % SHOTS < 2]
    assert str(tune_model(model, pixels[few], [labels[row] for row in few])[1]).startswith(
        "not tried: 12 images can be left"
    )


def test_copies_of_one_image_are_left_out_together(images: tuple[torch.Tensor, list[str]]) -> None:
    pixels, labels = images[0][::SHOTS].repeat_interleave(4, 0), [f"c{row // 4}" for row in range(4 * WAYS)]
    assert "no class has a second image" in str(tune_model(untrained(), pixels, labels)[1])


@pytest.mark.slow
def test_the_trust_of_a_tuned_model_is_that_of_images_it_had_not_seen(
    images: tuple[torch.Tensor, list[str]], better: None, tmp_path: Path
) -> None:
    pixels, labels = images
    tuned, verdict = tune_model(untrained(), pixels, labels)
    folder = ModelFolder.create(tmp_path / "letters", tuned)
    folder.learn(pixels.numpy(), labels, [f"{i}.png" for i in range(len(labels))])
    trust = folder.calibrate().trust
    assert trust.tested == verdict.images == len(labels)
    assert verdict.after is not None
    assert trust.accuracy is not None
    assert abs(trust.accuracy - verdict.after) < 15, "the same images, but for the correction for fewer images a class"
    assert len(trust.classes) == WAYS
    assert not len(folder.model.held_out.rows), "to leave an image out of the gallery alone would test nothing"

    read = ModelFolder.open(tmp_path / "letters")
    assert read.model.trust == trust
    assert read.representation.digest == tuned.representation.digest  # pyright: ignore[reportOptionalMemberAccess]
    rows = read.model.prepare(pixels.numpy())
    assert read.model.scores(rows).equal(folder.model.scores(rows))
    read.learn(pixels[:2].numpy() // 2, ["new", "new"], ["a", "b"])
    assert read.model.trust.accuracy == trust.accuracy
    own = dict(zip(read.model.gallery.names, read.model.trust.classes, strict=True))
    assert own.pop("new").tested == 0, "the encoder was not tuned on it"
    assert list(own.values()) == list(trust.classes)
    assert "single" not in {need.why for need in class_needs(read.model)}
    assert len(read.model.answer(rows[:1])[0].probabilities) == WAYS + 1


@pytest.mark.slow
def test_the_command_says_what_it_kept_and_the_folder_works_like_any_other(
    photos: Path, tmp_path: Path, better: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(photos / "fit"), "--out", "m", "--encoder", "omniglot-protonet", "--tune"]) == 0
    said = capsys.readouterr().out
    assert "tuning: kept: " in said
    assert "encoder: omniglot-protonet, tuned at 28 x 28 px" in said
    image = next((photos / "query").glob("*/*.png"))
    assert main(["predict", "m", str(image)]) == 0
    assert main(["add", "m", str(next((photos / "other").iterdir()))]) == 0
    assert main(["card", "m"]) == 0
    assert "classified by an encoder that was tuned on the others" in capsys.readouterr().out
    assert main(["fit", str(photos / "fit"), "--out", "m", "--encoder", "omniglot-protonet", "--tune"]) == 2
    assert "m is there already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_tuning_goes_on_from_its_last_fold(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["fit", str(photos / "fit"), "--encoder", "omniglot-protonet", "--tune", "--json", "--out"]
    fitted = list[int]()

    def count(*given: Any) -> torch.nn.Module:
        fitted.append(len(given))
        if len(fitted) == 3:
            raise KeyboardInterrupt
        return fit_tail(*given)

    monkeypatch.setattr("metarep.model.tuning.tune.fit_tail", count)
    assert main([*argv, "m"]) != 0
    assert [path.name for path in tmp_path.iterdir()] == [".m.unfinished"]
    assert main([*argv, "m"]) == 0
    again = len(fitted) - 3
    assert not (tmp_path / ".m.unfinished").exists()
    told = capsys.readouterr()
    resumed = json.loads(told.out)["tuning"]
    assert "2 parts of the learning had been finished by the same command, which was stopped" in told.err
    assert main([*argv, "n"]) == 0
    assert len(fitted) - 3 - again == again + 2, "two folds were finished"
    assert json.loads(capsys.readouterr().out)["tuning"] == resumed


def test_what_would_take_too_long_is_not_tried(
    images: tuple[torch.Tensor, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained()
    monkeypatch.setattr(budget, "TOO_LONG", 1e-9)
    same, verdict = tune_model(model, *images)
    assert same is model
    assert str(verdict) == "not tried: it would take about 0 minutes with this encoder; on smaller images it is faster"
    unlabelled = images[0].flip(-1)
    same, verdict = adapt_model(model, *images, torch.cat([unlabelled, images[0].flip(-2)]))
    assert same is model
    assert str(verdict).startswith("not tried: it would take about 0 minutes with this encoder")


class Asking(torch.nn.Module):
    """Hands an expanded parameter to a layer, as the pooling by attention of SigLIP does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.token = torch.nn.Linear(28 * 28, 8), torch.nn.Parameter(torch.randn(8))
        self.query = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x.flatten(1)) * self.query(self.token.expand(len(x), -1))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_networks_of_any_dtype_are_tuned(
    dtype: torch.dtype, images: tuple[torch.Tensor, list[str]], better: None
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Asking().to(dtype)
    pixels, labels = images
    own = represent(network, size=28, mean=(0.5,), std=(0.25,))
    classifier = FewShotClassifier(own, "prototypes", tune=True).fit(pixels.numpy(), labels)
    assert classifier.verdict_.kept
    tuned = classifier.model_.representation.encoder
    assert tuned.kind == dtype
    assert not torch.equal(tuned.body.first.weight, network.first.weight)
    more = torch.cat([pixels.flip(-1), pixels.flip(-2)])
    FewShotClassifier(own, "prototypes").fit(pixels.numpy(), labels, unlabelled=more.numpy())


def test_one_class_is_not_tuned(images: tuple[torch.Tensor, list[str]]) -> None:
    pixels, _ = images
    _, verdict = tune_model(untrained(), pixels, ["letter"] * len(pixels))
    assert str(verdict) == "not tried: there is one class only"


def test_the_batch_follows_from_the_operations_of_the_tail() -> None:
    encoder = untrained().representation.encoder
    halves, maps = budget.halves_for(encoder, 100, 90), torch.zeros(100, 1)
    for operations, batch in ((1, 128), (budget.WORK * 100 / (3 * 90 * 40), 40), (1e18, 16)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(budget, "operations", lambda *_, operations=operations: operations)
            assert budget.batch_for(halves, maps, 90) == batch


@pytest.mark.parametrize(
    "head", [{"name": "augmented"}, {"name": "descent", "scope": "norms"}], ids=["augmented", "descent"]
)
def test_a_learner_of_more_than_features_is_refused(head: dict, images: tuple[torch.Tensor, list[str]]) -> None:
    model = Model(untrained().representation, head)
    with pytest.raises(MetarepError, match=f"{head['name']}.*does more than compare features"):
        tune_model(model, *images)


@pytest.mark.slow
def test_the_classifier_tunes_once(images: tuple[torch.Tensor, list[str]], better: None) -> None:
    pixels, labels = images
    model = untrained()
    classifier = FewShotClassifier(model.representation, "prototypes", tune=True).fit(pixels.numpy(), labels)
    assert classifier.verdict_.kept
    first = classifier.model_.representation
    classifier.partial_fit([Image.new("L", (28, 28))], ["blank"])
    assert classifier.model_.representation is first
    assert (classifier.predict(pixels.numpy()) == np.array(labels)).mean() > 0.8
    with pytest.raises(MetarepError, match="there is no encoder to tune"):
        FewShotClassifier(tune=True).fit(np.eye(4), ["a", "b", "a", "b"])
