"""What a classifier that an encoder was pretrained with adds to `none of these`, and where it is kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, nn

from metarep.encoders import Encoder, Preprocess, drop_feature_statistics, space_of
from metarep.encoders.classifier import pack_classifier
from metarep.encoders.kept import read_kept, written_kept
from metarep.errors import MetarepError
from metarep.machine.files import read_tensors, write_tensors
from metarep.model.gallery import Gallery
from metarep.model.model import Model
from metarep.weights.named import load_representation
from metarep.weights.representation import Representation
from metarep.weights.shipped import general_mean

DIM = 6


def flat(classifier: torch.Tensor | None) -> Encoder:
    """An encoder whose images are features."""
    encoder = Encoder(nn.Flatten(), Preprocess((1, DIM), 1, (0.0,), (1.0,)))
    encoder.classifier = classifier
    return encoder


def galleries(generator: Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two classes of 12 images, 100 more images of them, and 100 strangers that differ in the last feature alone."""
    y = torch.arange(2).repeat_interleave(12)
    means = 10 * torch.eye(2, DIM)

    def images(of: torch.Tensor, last: float) -> torch.Tensor:
        rows = means[of] + 0.5 * torch.randn(len(of), DIM, generator=generator)
        rows[:, -1] = last + 0.1 * torch.randn(len(of), generator=generator)
        return rows

    asked = torch.arange(2).repeat(50)
    return images(y, 0.5), y, images(asked, 0.5), images(asked, -0.5)


@pytest.mark.parametrize("classified", [False, True])
def test_a_classifier_tells_strangers_that_features_do_not(classified: bool, generator: Generator) -> None:
    x, y, known, strangers = galleries(generator)
    weight = torch.zeros(2, DIM)
    weight[0, -1], weight[1, -1] = 20.0, -20.0  # its two classes differ in the last feature
    encoder = flat(pack_classifier(weight, torch.zeros(2)) if classified else None)
    gallery = Gallery.empty().add(x, [str(each) for each in y.tolist()], [""] * len(x))
    model = Model(Representation(encoder, "own"), {"name": "prototypes"}, gallery)
    accepted = (model.familiar(strangers) >= model.trust.known).float().mean()
    assert (model.familiar(known) >= model.trust.known).float().mean() > 0.85
    assert accepted < 0.1 if classified else accepted > 0.5
    assert model.point_space.points(x).shape[1] == DIM + 2 * classified


def test_a_classifier_is_saved_and_belongs_to_no_feature_space(small_encoder: Any, tmp_path: Path) -> None:
    encoder: Encoder = small_encoder()
    before = space_of(encoder)
    given = torch.randn(5, encoder.dim + 1)
    encoder.classifier = pack_classifier(given[:, :-1], given[:, -1])
    assert space_of(encoder) == before
    path = tmp_path / "encoder.safetensors"
    Representation(encoder.eval(), "small").save(path)
    again = load_representation(str(path)).encoder
    assert torch.equal(again.classifier, encoder.classifier)
    tensors, header = read_tensors(path)
    kept = tensors["pretrained_classifier"]
    for wrong in (kept.float(), kept[:, 1:], kept[:0], kept[0], kept / 0):
        write_tensors(path, {**tensors, "pretrained_classifier": wrong}, header)
        with pytest.raises(MetarepError, match=f"'pretrained_classifier' is not rows of {encoder.dim} weights and a"):
            load_representation(str(path))
    drop_feature_statistics(encoder)
    assert encoder.classifier is None
    assert written_kept(encoder) == {}
    read_kept({}, encoder)


def test_a_folder_without_the_classifier_keeps_the_thresholds_of_its_points() -> None:
    name = "efficientnet-lite0"
    general = general_mean(name)
    assert general is not None
    encoder = Encoder(nn.Flatten(), Preprocess((1, 1280), 1, (0.0,), (1.0,)))
    gallery = Gallery.empty().add(torch.rand(2, 1280), ["moth", "fly"], ["", ""])
    head = Model(Representation(encoder, name)).head
    older = Model(Representation(encoder, name), head, gallery)
    assert torch.equal(older.point_space.general, general[:1280])
    assert not older.point_space.measured
    encoder.classifier = torch.zeros(len(general) - 1280, 1281)
    newer = Model(Representation(encoder, name), head, gallery)
    assert older.trust.known != newer.trust.known
    assert older.trust.known == pytest.approx(newer.trust.known, abs=0.01)
    assert replace(newer.trust, known=older.trust.known) == older.trust
