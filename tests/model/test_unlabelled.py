"""An encoder that learns from unlabelled images: kept only where it is better for the labelled ones."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained_model import untrained

from metarep import FewShotClassifier, Gallery, Model, adapt_model, load_dataset, model_card
from metarep.cli import main
from metarep.cli.trust_lines import trust_line
from metarep.data.augment import preset
from metarep.data.datasets.options import LeftOutWarning
from metarep.errors import MetarepError
from metarep.model.folder import ModelFolder
from metarep.model.tuning.tailored import check_images
from metarep.model.tuning.verdict import judge

WAYS, SHOTS = 6, 5


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """Five labelled letters of each of six classes, and four letters of each of thirty others without labels."""
    split = load_dataset("glyphs", "test", size=28)
    starts = split.labels.starts.tolist()
    labelled = torch.cat([split.labels.rows[start : start + SHOTS] for start in starts[:WAYS]])
    others = torch.cat([split.labels.rows[start : start + 4] for start in starts[WAYS : WAYS + 30]])
    labels = [f"c{way}" for way in range(WAYS) for _ in range(SHOTS)]
    return split.bank.pixels(labelled), labels, split.bank.pixels(others)


@pytest.fixture
def better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarep.model.tuning.unlabelled.judge", lambda *given, **_: replace(judge(*given), kept=True))


@pytest.mark.slow
def test_an_adaptation_is_the_same_each_time_and_leaves_the_given_model_alone(
    drawn: tuple[torch.Tensor, list[str], torch.Tensor], better: None
) -> None:
    model, shares = untrained(), list[float]()
    assert model.representation is not None
    before, state = model.representation.digest, torch.get_rng_state()
    adapted, verdict = adapt_model(model, *drawn, on_progress=shares.append)
    again, _ = adapt_model(model, *drawn)
    assert adapted.representation is not None
    assert again.representation is not None
    assert model.representation.digest == before != adapted.representation.digest == again.representation.digest
    assert torch.equal(torch.get_rng_state(), state)
    assert adapted.representation.name.endswith(", adapted")
    assert (verdict.images, shares == sorted(shares)) == (WAYS * SHOTS, True)
    assert shares[-1] == pytest.approx(1)


@pytest.mark.slow
def test_another_view_of_an_image_is_found_more_often(
    drawn: tuple[torch.Tensor, list[str], torch.Tensor], better: None
) -> None:
    """Over ten views of each of 120 drawings, so that the rounding of a processor does not decide."""
    model, unlabelled, generator = untrained(), drawn[2], torch.Generator().manual_seed(7)
    adapted, _ = adapt_model(model, *drawn)
    random = preset("drawings")
    assert random is not None
    views = [random.apply(unlabelled, random.draw(len(unlabelled), generator, 1.0)) for _ in range(10)]

    def share(each: Model) -> float:
        assert each.representation is not None
        one, *others = (
            torch.nn.functional.normalize(each.representation.encoder(x), dim=-1) for x in (unlabelled, *views)
        )
        found = [(one @ other.mT).argmax(1) == torch.arange(len(one)) for other in others]
        return torch.stack(found).float().mean().item()

    with torch.no_grad():
        assert share(adapted) > 1.25 * share(model)  # five standard errors of 1,200 trials


@pytest.mark.slow
def test_what_is_not_better_changes_nothing(
    drawn: tuple[torch.Tensor, list[str], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metarep.model.tuning.fitting.RATE", 3.0)  # a training that destroys the features
    model = untrained()
    same, verdict = adapt_model(model, *drawn)
    assert same is model
    assert str(verdict).startswith("not kept, as it is ")


def test_too_few_images_are_told(drawn: tuple[torch.Tensor, list[str], torch.Tensor]) -> None:
    images, labels, unlabelled = drawn
    with pytest.raises(MetarepError, match="at least 32 unlabelled images are needed to learn from them, not 31"):
        adapt_model(untrained(), images, labels, unlabelled[:31])
    few = [row for row in range(len(labels)) if row % SHOTS < 2]
    same, verdict = adapt_model(untrained(), images[few], [labels[row] for row in few], unlabelled)
    assert same.representation is not None
    assert str(verdict) == ("not tried: 12 labelled images can be left out, and 20 are needed to tell whether it helps")


def test_images_of_another_form_and_copies_of_labelled_ones_are_refused(
    drawn: tuple[torch.Tensor, list[str], torch.Tensor],
) -> None:
    images, labels, unlabelled = drawn
    for wrong, message in (
        ((images, labels[:-1], unlabelled), "30 images have 29 labels; give one for each"),
        ((images[:0], [], unlabelled), "there are no labelled images"),
        ((images, labels, images), "not 0; copies of labelled ones do not count"),
    ):
        with pytest.raises(MetarepError, match=message):
            adapt_model(untrained(), *wrong)
    encoder = untrained().learner.encoder
    with pytest.raises(MetarepError, match=r"images must be uint8 of the shape \(n, 1, 28, 28\), not torch.float32"):
        check_images(encoder, unlabelled.float())
    with pytest.raises(MetarepError, match=r"not torch.uint8 of \(120, 1, 28, 20\)"):
        check_images(encoder, unlabelled[..., :20])
    with pytest.raises(MetarepError, match="at least 32 unlabelled images are needed"):
        FewShotClassifier(untrained().representation).fit(images.numpy(), labels, unlabelled=[])


@pytest.mark.slow
def test_the_accuracy_of_a_model_that_the_same_images_chose_is_lowered(
    drawn: tuple[torch.Tensor, list[str], torch.Tensor], better: None, tmp_path: Path
) -> None:
    images, labels, unlabelled = drawn
    model, verdict = adapt_model(untrained(), images, labels, unlabelled)
    model = model.changed(Gallery.empty().add(model.prepare(images), labels, [""] * len(labels)))
    plain = Model(model.representation, model.head, model.gallery)
    assert model.adapting is not None
    assert plain.trust.accuracy is not None
    assert (verdict.unlabelled, verdict.discount > 0) == (120, True)
    assert model.trust.accuracy == pytest.approx(plain.trust.accuracy - verdict.discount)
    assert model.trust.lowered_by == verdict.discount
    assert f"lowered by {verdict.discount:.1f} points, for the same images have chosen the encoder" in trust_line(model)
    assert "lowered" not in trust_line(plain)
    folder = ModelFolder.create(tmp_path / "m", model)
    assert ModelFolder.open(folder.path).model.adapting == verdict
    assert f"so the accuracy is lowered by {verdict.discount:.1f} points" in model_card(model, "m")


@pytest.mark.slow
@pytest.mark.parametrize("surely", [False, True])
def test_a_gain_within_its_error_is_taken_for_chance(surely: bool) -> None:
    """Simulated: of many pairs of encoders that are equally good, the one that did better is promised too much."""
    generator, excess, lowered = torch.Generator().manual_seed(0), [], []
    classes, rows = torch.arange(5).repeat_interleave(12), torch.arange(60)
    truth = 1.5 * torch.nn.functional.one_hot(classes, 5).float()
    for _ in range(300):
        before, after = (truth + torch.randn(60, 5, generator=generator) for _ in range(2))
        verdict = judge(before, after, rows, classes, 5, surely=surely)
        if verdict.kept:
            assert verdict.gain is not None
            excess.append(verdict.gain[0])
            lowered.append(verdict.gain[0] - verdict.discount)
    assert len(excess) > 30
    assert sum(excess) / len(excess) > 4
    assert sum(lowered) / len(lowered) < 0.5 * sum(excess) / len(excess)


@pytest.mark.slow
def test_the_command_passes_over_labelled_images_and_says_what_it_kept(
    photos: Path, tmp_path: Path, better: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = ["fit", str(photos / "fit"), "--encoder", "omniglot-protonet", "--unlabelled"]
    assert main([*fit, str(photos / "fit"), "--out", "none"]) == 2
    assert "holds 0 images without a label, and at least 32 are needed" in capsys.readouterr().err
    (tmp_path / "more").mkdir()
    image = next((photos / "query").glob("*/*.png"))
    for number in range(40):
        (tmp_path / "more" / f"{number}.png").write_bytes(image.read_bytes())
    (tmp_path / "more" / "bad.png").write_bytes(b"no image")
    with warnings.catch_warnings():
        warnings.simplefilter("default", LeftOutWarning)
        assert main([*fit, "more", "--out", "m"]) == 0
    said = capsys.readouterr()
    assert "adapting: kept: " in said.out
    assert "encoder: omniglot-protonet, adapted at 28 x 28 px" in said.out
    assert "left out: more/bad.png is not an image" in said.err
    assert main(["predict", "m", str(image)]) == 0
    capsys.readouterr()
    (tmp_path / "more" / "bad.png").unlink()
    assert main([*fit, "more", "--out", "n", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapting"]["kept"]


@pytest.mark.slow
def test_the_classifier_adapts(drawn: tuple[torch.Tensor, list[str], torch.Tensor], better: None) -> None:
    images, labels, unlabelled = drawn
    classifier = FewShotClassifier(untrained().representation, "prototypes")
    classifier.fit(images.numpy(), labels, unlabelled=unlabelled.numpy())
    assert classifier.adapting_.kept
    assert (classifier.predict(images.numpy()) == np.array(labels)).mean() > 0.8
    with pytest.raises(MetarepError, match="there is no encoder to adapt"):
        FewShotClassifier().fit(np.eye(4), ["a", "b", "a", "b"], unlabelled=unlabelled.numpy())
