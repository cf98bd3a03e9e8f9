"""Tests of what follows from the number of images of a class, against loops and on made features."""

import pytest
import torch
from task_rows import pixels
from torch import Generator
from torch.nn import functional

from metarep.learners import Prototypes
from metarep.learners.class_means import class_means
from metarep.learners.class_sizes import shared_cosine, shrunk_means
from metarep.learners.learner import Metric


def test_the_shared_cosine_is_that_of_all_pairs_of_a_class() -> None:
    generator = Generator().manual_seed(0)
    rows = torch.randn(3, 20, 4, generator=generator, dtype=torch.float64) + 1
    labels = torch.randint(5, (3, 20), generator=generator)
    labels[2, :19], labels[2, 19] = 0, 3  # one class of many, one of one
    for task in range(3):
        pairs: dict[int, list[float]] = {}
        for i in range(20):
            for j in range(i):
                if labels[task, i] == labels[task, j]:
                    cosine = functional.cosine_similarity(rows[task, i], rows[task, j], dim=0).item()
                    pairs.setdefault(int(labels[task, i]), []).append(cosine)
        means = [sum(own) / len(own) for own in pairs.values()]
        assert shared_cosine(rows, labels, 5)[task].item() == pytest.approx(sum(means) / len(means))
    assert shared_cosine(rows, torch.arange(20).expand(3, -1), 20).tolist() == [1, 1, 1], "no class has two images"


def test_shrunk_means_are_nearer_to_the_true_ones() -> None:
    """Over many tasks, for the small classes; those of the largest stay as they are."""
    generator, before, after = Generator().manual_seed(0), [], []
    labels = torch.tensor([0, 1, *[2] * 3, *[3] * 12, *[4] * 12]).expand(50, -1)
    for _ in range(4):
        true = torch.randn(50, 5, 20, generator=generator, dtype=torch.float64)
        noise = 1.5 * torch.randn(50, 29, 20, generator=generator, dtype=torch.float64)
        rows = true.gather(1, labels.unsqueeze(-1).expand(-1, -1, 20)) + noise
        means = class_means(rows, labels, 5)
        drawn = shrunk_means(means, rows, labels)
        torch.testing.assert_close(drawn[:, 3:], means[:, 3:])
        before.append((means - true)[:, :3].square().mean((0, 2)))
        after.append((drawn - true)[:, :3].square().mean((0, 2)))
    assert (torch.stack(after).mean(0) < 0.95 * torch.stack(before).mean(0)).all()
    even = torch.arange(30).expand(50, -1) % 5
    rows = torch.randn(50, 30, 4, generator=generator)
    torch.testing.assert_close(shrunk_means(class_means(rows, even, 5), rows, even), class_means(rows, even, 5))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_class_means_of_few_images_are_not_lost_beside_those_of_many(metric: Metric) -> None:
    generator, right = Generator().manual_seed(0), []
    labels = torch.tensor([*range(10), *(torch.arange(10, 20).repeat(20).tolist())]).unsqueeze(0)
    asked = torch.arange(20).repeat(10)
    for _ in range(10):
        true = torch.randn(20, 200, generator=generator)

        def images(classes: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
            return (means[classes] + 2 * torch.randn(*classes.shape, 200, generator=generator)).unsqueeze(0)

        support, query = images(labels[0], true), images(asked, true)
        learner = Prototypes(pixels(), metric)
        for training in (True, False):  # in training, tasks have equal classes, and nothing is done
            learner.train(training)
            guess = learner.logits(learner.adapt(support, labels, 20), query)[0].argmax(-1)
            right.append(torch.stack([(guess == asked)[asked < 10], (guess == asked)[asked >= 10]]).double().mean(1))
    plain, allowed = torch.stack(right).view(10, 2, 2).mean(0)
    assert allowed[0] > plain[0] + 0.05, "small classes"
    assert allowed.mean() > plain.mean() + 0.01, "all"
