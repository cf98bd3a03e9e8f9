"""The newer heads, each against its formula in float64, written slowly."""

import math
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from task_rows import UNEVEN, pixels, rows_of, solve
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.augment import preset
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.encoders import (
    Encoder,
    Preprocess,
    keep_feature_means,
    keep_feature_spread,
    keep_feature_statistics,
    keep_view_spread,
)
from metarep.encoders.feature_means import centred
from metarep.encoders.feature_spread import VIEWS, feature_spread, whitened
from metarep.errors import MetarepError
from metarep.learners import (
    BDCSPN,
    AugmentedLinear,
    AveragedPrototypes,
    GradientDescent,
    Linear,
    Prototypes,
    SimpleShot,
    build_learner,
    described,
    read_learner,
)
from metarep.learners.learner import Metric
from metarep.methods import ANIL, ProtoNet


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(unit(a), unit(b), strict=True))


def mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_simpleshot_by_loop(metric: Any, power: float) -> None:
    support, y, query = rows_of()
    learner = SimpleShot(pixels(), metric, 0.3, power=power).double()
    got, means = solve(learner, support, y, query), learner.encoder.feature_means
    assert means is not None
    own = means[0 if power == 1 else 1].tolist()

    def mapped(row: Tensor) -> list[float]:
        raised = unit([math.copysign(abs(x) ** power, x) for x in row.tolist()])
        return unit([x - m for x, m in zip(raised, own, strict=True)])

    for task in range(4):
        for way in range(3):
            prototype = mean([mapped(support[task, i]) for i in range(len(UNEVEN)) if y[task, i] == way])
            for q in range(7):
                row = mapped(query[task, q])
                apart = -sum((a - b) ** 2 for a, b in zip(row, prototype, strict=True))
                want = cosine(row, prototype) if metric == "cosine" else apart
                assert got[task, q, way].item() == pytest.approx(want / 0.3)


@pytest.mark.parametrize("confident", [0, 2])
def test_bd_cspn_by_loop(confident: int) -> None:
    support, y, query = rows_of()
    got = solve(BDCSPN(pixels(), temperature=0.2, epsilon=5.0, confident=confident), support, y, query)
    for task in range(4):
        rows = [unit(row) for row in support[task].tolist()]
        first = [mean([rows[i] for i in range(len(rows)) if y[task, i] == way]) for way in range(3)]
        asked = [unit(row) for row in query[task].tolist()]
        shift = [s - q for s, q in zip(mean(rows), mean(asked), strict=True)]
        asked = [[x + s for x, s in zip(row, shift, strict=True)] for row in asked]
        guess = [max(range(3), key=lambda way, row=row: cosine(row, first[way])) for row in asked]
        for way in range(3):
            near = sorted((row for row, g in zip(asked, guess, strict=True) if g == way),
                          key=lambda row, way=way: -cosine(row, first[way]))  # fmt: skip
            members = [rows[i] for i in range(len(rows)) if y[task, i] == way] + near[: confident or None]
            weights = [math.exp(5 * cosine(row, first[way])) for row in members]
            moved = [sum(w * x for w, x in zip(weights, column, strict=True)) / sum(weights)
                     for column in zip(*members, strict=True)]  # fmt: skip
            for q in range(7):
                assert got[task, q, way].item() == pytest.approx(cosine(asked[q], moved) / 0.2)


def test_a_cosine_head_descends_its_loss() -> None:
    """Against autograd of the loss as it is written, from the same start."""
    support, y, query = rows_of()
    learner = GradientDescent(pixels(), head="cosine", inner_lr=0.3, steps=4, temperature=0.2).double().eval()
    got = solve(learner, support, y, query)
    for task in range(4):
        x = functional.normalize(support[task], dim=-1)
        means = torch.stack([x[y[task] == way].mean(0) for way in range(3)])
        weight = functional.normalize(means, dim=-1).requires_grad_()
        for _ in range(4):
            loss = functional.cross_entropy(functional.linear(x, functional.normalize(weight, dim=-1)) / 0.2, y[task])
            weight = weight - 0.3 * torch.autograd.grad(loss, weight)[0]
        want = functional.cosine_similarity(query[task].unsqueeze(1), weight.unsqueeze(0), dim=-1) / 0.2
        torch.testing.assert_close(got[task], want.detach())
    large = solve(learner, 1000 * support, y, query)
    torch.testing.assert_close(large, got, msg="the scale of features has no effect")


def test_logistic_regression_of_augmented_copies_is_sklearns() -> None:
    g = Generator().manual_seed(0)
    images = torch.rand(2, 7, 1, 8, 8, generator=g, dtype=torch.float64)
    encoder = Encoder(nn.Flatten(), Preprocess((8, 8), 1, (0.0,), (1.0,))).double()
    learner, y = AugmentedLinear(encoder, copies=3), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    rows = torch.stack([learner.prepare(task) for task in images])
    state = learner.adapt(rows, y.expand(2, -1), 3)
    got, average = (one.logits(state, rows) for one in (learner, AugmentedLinear(encoder, copies=3, average=True)))
    for task in range(2):
        flat = functional.normalize(rows[task].reshape(28, -1), dim=-1)
        x = torch.cat([flat, torch.ones(28, 1, dtype=torch.float64)], 1).numpy()
        oracle = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
        oracle.fit(x, y.repeat_interleave(4).numpy())
        want = torch.from_numpy(oracle.decision_function(x)).view(7, 4, 3)
        torch.testing.assert_close(got[task].softmax(-1), want[:, 0].softmax(-1), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            average[task], want.mean(1) + (average[task] - want.mean(1)).mean(), atol=1e-3, rtol=0
        )


def test_the_rows_of_an_image_depend_on_no_other_image() -> None:
    images = torch.randint(256, (6, 3, 12, 12), generator=Generator().manual_seed(0), dtype=torch.uint8)
    learner = AugmentedLinear(Encoder(nn.Flatten(), Preprocess((12, 12), 3, (0.5,) * 3, (0.5,) * 3)))
    rows = learner.prepare(images)
    assert rows.shape == (6, 6, 432)
    assert torch.equal(rows[:, 0], learner.embed(images)), "the first view is the plain image"
    assert len({tuple(view.tolist()) for view in rows[0]}) == 6, "all views differ"
    torch.testing.assert_close(learner.prepare(images[2:3]), rows[2:3])
    torch.testing.assert_close(learner.prepare(images.flip(0)).flip(0), rows)
    assert learner.views.random == preset("photos")
    drawn = AugmentedLinear(Encoder(nn.Flatten(), Preprocess((12, 12), 1, (0.5,), (0.5,), invert=True)))
    assert drawn.views.random == preset("drawings")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_averaged_prototypes_are_prototypes_of_mean_features(metric: Metric) -> None:
    images = torch.rand(6, 1, 8, 8, generator=Generator().manual_seed(0), dtype=torch.float64)
    encoder = Encoder(nn.Flatten(), Preprocess((8, 8), 1, (0.0,), (1.0,))).double()
    views = AugmentedLinear(encoder, copies=3).prepare(images)
    if metric == "cosine":
        views = views / views.norm(dim=-1, keepdim=True)
    rows = AveragedPrototypes(encoder, metric, copies=3).prepare(images)
    torch.testing.assert_close(rows, views.sum(1) / 4)
    plain, y = Prototypes(encoder, metric), torch.arange(3).unsqueeze(0)
    averaged = build_learner("averaged", encoder, **AveragedPrototypes(encoder, metric, copies=3).settings)
    want = solve(plain, rows[None, :3], y, rows[None, 3:])
    torch.testing.assert_close(solve(averaged, rows[None, :3], y, rows[None, 3:]), want)
    assert torch.equal(AveragedPrototypes(encoder, metric, copies=0).prepare(images), views[:, 0])


def test_all_views_of_an_image_are_left_out_together() -> None:
    g = Generator().manual_seed(0)
    rows, y = torch.randn(9, 3, 5, generator=g, dtype=torch.float64), torch.arange(9) % 3
    learner = AugmentedLinear(pixels(), copies=2)
    out = torch.tensor([0, 4])
    stays = torch.tensor([i for i in range(9) if i not in (0, 4)])
    found = learner.held_out(rows, y, 3, [out])
    state = learner.adapt(rows[stays].unsqueeze(0), y[stays].unsqueeze(0), 3)
    torch.testing.assert_close(found, learner.logits(state, rows[out].unsqueeze(0))[0])
    assert torch.equal(learner.features_of(rows), rows[:, 0])


def test_a_learned_temperature_starts_as_it_is_given_and_is_trained() -> None:
    support, y, query = rows_of()
    plain = Prototypes(pixels(), "cosine", 0.1).double()
    learned = Prototypes(pixels(), "cosine", 0.1, learn_temperature=True).double()
    assert ProtoNet(pixels(), metric="cosine", learn_temperature=True).learner.settings["learn_temperature"]
    assert learned.log_temperature is not None
    torch.testing.assert_close(solve(learned, support, y, query), solve(plain, support, y, query), rtol=1e-6, atol=1e-6)
    assert not list(plain.parameters()), "off, there is nothing more"
    loss = learned.task_loss(support, y, query, y[:, :7], 3)
    (gradient,) = torch.autograd.grad(loss, [learned.log_temperature])
    step = 1e-6
    losses = [
        Prototypes(pixels(), "cosine", 0.1 * math.exp(sign * step)).task_loss(support, y, query, y[:, :7], 3)
        for sign in (1, -1)
    ]
    assert gradient.item() == pytest.approx(((losses[0] - losses[1]) / (2 * step)).item(), rel=1e-4)


def test_an_encoder_keeps_means_of_features_on_the_unit_sphere(drawings, small_encoder) -> None:
    encoder, bank = small_encoder().train(), drawings[0].bank
    with pytest.raises(MetarepError, match=r"keeps no mean of training features .*keep_feature_means\(encoder, bank\)"):
        SimpleShot(encoder)
    keep_feature_means(encoder, bank, most=50)
    assert encoder.training
    rows = torch.linspace(0, len(bank) - 1, 50).round().long()
    with torch.no_grad():
        features = encoder.eval()(bank.pixels(rows)).double()
    for mean, power in zip(encoder.feature_means, (1, 0.5), strict=True):
        want = functional.normalize(features.sign() * features.abs() ** power).mean(0)
        torch.testing.assert_close(mean, want.float())
    assert "feature_means" not in encoder.state_dict()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_whitening_divides_by_the_root_of_the_covariance_within_classes(
    drawings, small_encoder, share: float, monkeypatch
) -> None:
    encoder, (split, _) = small_encoder().eval(), drawings
    monkeypatch.setattr("metarep.encoders.feature_spread.A_CLASS", 20)  # all images of a class
    with pytest.raises(MetarepError, match="does not keep how its features differ within classes"):
        feature_spread(encoder)
    keep_feature_statistics(encoder, split)
    with torch.no_grad():
        rows = encoder(split.bank.images)
    x = centred(rows.double(), encoder)
    total, free = torch.zeros(encoder.dim, encoder.dim, dtype=torch.float64), 0
    for name in split.labels.classes.unique():
        own = x[split.labels.classes == name]
        assert len(own) == 20
        for row in own:
            total += torch.outer(row - own.mean(0), row - own.mean(0))
        free += len(own) - 1
    mixed = share * total / free + (1 - share) * (total / free).diagonal().mean() * torch.eye(encoder.dim)
    values, vectors = torch.linalg.eigh(mixed)
    want = functional.normalize(x @ vectors @ values.rsqrt().diag() @ vectors.mT, dim=-1)
    got = whitened(rows.double(), encoder, share)
    torch.testing.assert_close(got @ got.mT, want @ want.mT, rtol=1e-4, atol=1e-5)  # the basis is another one
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(len(rows), dtype=torch.float64))


def test_without_labels_the_covariance_is_that_of_views(drawings, small_encoder) -> None:
    """Against a loop in float64, and as the sum over two processes of which each holds every other image."""
    encoder, (split, _), augment = small_encoder().eval(), drawings, preset("views-drawings")
    bank = split.bank.between(0, 40)
    keep_feature_means(encoder, bank)
    keep_view_spread(encoder, bank, augment)
    assert encoder.feature_spread is not None
    variances, directions = encoder.feature_spread[0].double(), encoder.feature_spread[1:].double()
    generator = Generator().manual_seed(0)
    with torch.no_grad():
        views = [centred(encoder(augment(bank.images, generator)), encoder).double() for _ in range(VIEWS)]
    covariance = torch.zeros(encoder.dim, encoder.dim, dtype=torch.float64)
    for image in range(40):
        own = torch.stack([view[image] for view in views])
        covariance += (own - own.mean(0)).mT @ (own - own.mean(0)) / (40 * (VIEWS - 1))
    torch.testing.assert_close(directions.mT @ variances.diag() @ directions, covariance, rtol=1e-4, atol=1e-7)

    totals = []
    for process in range(2):

        class Half(ImageBank):
            def held(self, rows, process=process):
                return rows[rows % 2 == process]

            def gathered(self, rows):
                totals.append(rows)
                return torch.cat(totals)

        keep_view_spread(encoder, Half(bank.stored), augment)
    torch.testing.assert_close(encoder.feature_spread[0].double(), variances, rtol=1e-4, atol=1e-7)


def test_whitening_is_refused_where_it_says_nothing(small_encoder) -> None:
    encoder = small_encoder()
    with pytest.raises(MetarepError, match="does not keep how its features differ"):
        AveragedPrototypes(with_means(encoder), whiten=0.5)
    for wrong in ({"whiten": 1.0}, {"whiten": -0.1}, {"whiten": 0.5, "power": 0.5}):
        with pytest.raises(MetarepError, match="whiten is from 0 to below 1, and goes with power=1"):
            Prototypes(encoder, **wrong)
    bank, alone = ImageBank(torch.zeros(3, 1, *encoder.preprocess.size, dtype=torch.uint8)), Labels.of(["a", "b", "c"])
    keep_feature_spread(encoder, bank, alone)
    assert encoder.feature_spread is None, "classes of one image do not differ"
    with pytest.raises(MetarepError, match="there are 3 images and 2 labels"):
        keep_feature_spread(encoder, bank, Labels.of(["a", "b"]))
    with torch.no_grad():
        next(encoder.parameters()).fill_(math.nan)
    with pytest.raises(MetarepError, match="a feature of these images is NaN or infinite"):
        keep_feature_spread(encoder, bank, Labels.of(["a", "a", "b"]))
    with pytest.raises(MetarepError, match="a feature of these images is NaN or infinite"):
        keep_view_spread(encoder, bank, preset("drawings"))


def with_means(encoder: Encoder) -> Encoder:
    encoder.feature_means = torch.zeros(2, encoder.dim)
    return encoder


@pytest.mark.parametrize(
    "learner",
    [
        Prototypes(pixels(), "cosine", 0.2, power=0.5, centre=True, learn_temperature=True),
        SimpleShot(pixels(), power=0.5),
        AugmentedLinear(pixels(), copies=2, strength=0.3),
        BDCSPN(pixels(), confident=3),
        GradientDescent(pixels(), head="cosine", temperature=0.2),
    ],
    ids=lambda learner: type(learner).__name__,
)
def test_settings_make_the_same_learner_again(learner) -> None:
    about: Any = described(learner)
    again = build_learner(encoder=pixels(), **about)
    assert (type(again), again.settings, again.called) == (type(learner), learner.settings, learner.called)
    assert again.state_dict().keys() == learner.state_dict().keys()


def test_options_that_are_off_change_no_file() -> None:
    assert Prototypes(pixels()).settings == {"metric": "euclidean", "temperature": 1.0}
    assert "temperature" not in GradientDescent(pixels()).settings


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("simpleshot", {}),
        ("simpleshot:power=0.5", {"power": 0.5}),
        ("descent:head=cosine,steps=50,inner_lr=0.5", {"head": "cosine", "steps": 50, "inner_lr": 0.5}),
        ("linear:centre=true", {"centre": True}),
        ("descent:test_steps=3", {"test_steps": 3}),
    ],
)
def test_a_learner_is_read_with_its_settings(text: str, settings: dict) -> None:
    assert read_learner(text) == (text.partition(":")[0], settings)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: read_learner("simpelshot"), "unknown learner 'simpelshot'; did you mean 'simpleshot'"),
        (lambda: read_learner("linear:strenght=1"), "unknown setting of linear 'strenght'; did you mean 'strength'"),
        (lambda: read_learner("linear:strength=much"), "strength of linear must be a number, not 'much'"),
        (lambda: read_learner("linear:centre=1"), "centre of linear must be true or false, not '1'"),
        (lambda: read_learner("neighbours:k=1.5"), "k of neighbours must be a whole number"),
        (lambda: SimpleShot(pixels(), power=0.7), "power=0.7 cannot be centred: means are kept for powers of 1 and"),
        (lambda: AugmentedLinear(pixels(), copies=65), "copies must be from 0 to 64, not 65"),
        (lambda: AugmentedLinear(pixels(), augment="none"), "copies that are all the same"),
        (lambda: AugmentedLinear(pixels(), augment="photo"), "unknown augmentation 'photo'"),
        (lambda: BDCSPN(pixels(), confident=-1), "confident is a number of queries, 0 for all, and cannot be -1"),
        (lambda: BDCSPN(pixels(), temperature=0.0), "temperature"),
        (lambda: GradientDescent(pixels(), head="cosine", scope="all"), "head=cosine compares features of length 1"),
        (lambda: GradientDescent(pixels(), head="cosine", temperature=-1.0), "temperature"),
        (lambda: Linear(pixels(), power=0.0), "power"),
    ],
)
def test_wrong_settings_are_refused(wrong, message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        wrong()


def test_anil_trains_a_cosine_head() -> None:
    support, y, query = rows_of()
    learner = ANIL(pixels(), head="cosine", learned_rates=True).learner.double()
    learner.task_loss(support, y, query, y[:, :7], 3).backward()
    gradients = [parameter.grad for parameter in learner.rates.parameters()]
    assert any(gradient is not None and bool(gradient.any()) for gradient in gradients)
