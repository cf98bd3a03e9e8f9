"""Encoders: sizes, starting weights, preprocessing, DropBlock, and bodies that are not ours."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.batch import BatchShape, TaskBatch
from metarep.data.batches import draw_batch
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.encoders import ENCODERS, Conv4, Encoder, Preprocess, ResNet12, build_encoder
from metarep.encoders.resnet12 import DropBlock
from metarep.encoders.warm_start import warm_start
from metarep.errors import MetarepError
from metarep.machine.device import pick_precision
from metarep.methods import MAML
from metarep.weights.shapes import shapes_only

PLAIN = {1: ((0.0,), (1.0,)), 3: ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))}


def plain(side: int, channels: int = 1, **more: Any) -> Preprocess:
    return Preprocess((side, side), channels, *PLAIN[channels], **more)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 32, 84, 105])
@pytest.mark.parametrize(("name", "dims"), [("conv4", {28: 8, 32: 32, 84: 200, 105: 288}), ("resnet12", 20)])
def test_any_size_and_channels(name: str, dims: Any, side: int, channels: int) -> None:
    settings = {"width": 8} if name == "conv4" else {"width": 2}
    encoder = build_encoder(name, plain(side, channels), **settings)
    features = encoder(noise(2, channels, side, side))
    assert encoder.dim == (dims[side] if isinstance(dims, dict) else dims)
    assert features.shape == (2, encoder.dim)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    encoder.eval()
    assert encoder(noise(2, channels, side, side)).std() > 0, "features must not vanish in evaluation mode"


@pytest.mark.parametrize("size", [(28, 28), (84, 57)])
@pytest.mark.parametrize(
    ("name", "width"), [("conv4", {"width": 3}), ("resnet12", {"width": 2}), ("efficientnet-lite", {})]
)
def test_shapes_alone_are_those_of_the_encoder(name: str, width: dict[str, int], size: tuple[int, int]) -> None:
    preprocess = Preprocess(size, 3, *PLAIN[3])
    with shapes_only():
        bare = build_encoder(name, preprocess, **width)
    encoder = build_encoder(name, preprocess, **width)
    assert (bare.dim, bare.layout) == (encoder.dim, encoder.layout)
    assert {key: value.shape for key, value in bare.state_dict().items()} == {
        key: value.shape for key, value in encoder.state_dict().items()
    }
    assert all(value.is_meta for value in bare.state_dict().values())


@pytest.mark.slow
def test_the_papers_sizes() -> None:
    assert build_encoder("conv4", plain(28)).dim == 64
    assert build_encoder("conv4", plain(84, 3)).dim == 1600
    assert sum(p.numel() for p in Conv4(1).parameters()) == 9 * 64 + 3 * 9 * 64 * 64 + 4 * 2 * 64
    assert sum(p.numel() for p in ResNet12(3).parameters()) == pytest.approx(12.4e6, rel=0.01)
    assert sum(p.numel() for p in ResNet12(3, growth="narrow").parameters()) == pytest.approx(8.0e6, rel=0.01)


def test_conv4_of_other_widths() -> None:
    """The blocks have the widths that are given, and the paths for four equal blocks leave it alone."""
    body = Conv4(1, widths=[3, 5, 7, 6, 8])
    assert [block[0].out_channels for block in list(body)[:5]] == [3, 5, 7, 6, 8]
    assert body(torch.rand(2, 1, 70, 42)).shape == (2, body.dim_at((70, 42))) == (2, 8 * 2 * 1)
    assert Conv4(3, widths=[4, 6], average=True)(torch.rand(1, 3, 9, 9)).shape == (1, 6)
    maml_step(body)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in body.parameters())
    for wrong in ([0], [4] * 17):
        with pytest.raises(MetarepError, match="widths are up to 16 numbers of at least 1"):
            Conv4(1, widths=wrong)


def maml_step(body: nn.Module) -> None:
    """A step of maml in second order on one task of random images; its inner loop takes the path of any network."""
    method = MAML(Encoder(body, Preprocess((42, 42), 1, (0.0,), (1.0,))), ways=2, inner_steps=1)
    labels = Labels.of(["a", "b"] * 3)
    bank = ImageBank(torch.randint(256, (6, 1, 42, 42), dtype=torch.uint8, generator=Generator().manual_seed(0)))
    batch = draw_batch(TaskBatch, bank, labels, BatchShape(2, 1, 2), None, Generator().manual_seed(0))
    method.step(batch, progress=0.0, generator=Generator()).loss.backward()


def test_representations_have_the_documented_length() -> None:
    """The same directions, and nothing more to learn: the weights of one without fit."""
    free, bound = (build_encoder("conv4", plain(28), width=8, length=length).eval() for length in (0.0, 3.0))
    warm_start(bound, free, "a run")
    images = noise(5, 1, 28, 28)
    torch.testing.assert_close(bound(images), 3 * functional.normalize(free(images), dim=1))
    assert bound(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).isfinite().all()
    with pytest.raises(MetarepError, match="length must be at least 0 and finite, not -1"):
        build_encoder("conv4", plain(28), length=-1.0)


@pytest.mark.parametrize(("name", "slope"), [("conv4", 0.0), ("resnet12", 0.1)])
def test_weights_are_initialised_as_documented(name: str, slope: float) -> None:
    torch.manual_seed(0)
    body = ENCODERS[name](3, width=32)
    convolutions = [layer for layer in body.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in body.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in convolutions:
        want = math.sqrt(2 / (1 + slope**2) / (layer.out_channels * math.prod(layer.kernel_size)))
        n = layer.weight.numel()
        assert layer.weight.std().item() == pytest.approx(want, abs=4 * want / math.sqrt(2 * n))
        assert abs(layer.weight.mean().item()) < 4 * want / math.sqrt(n)
        assert layer.bias is None
    assert len(norms) == len(convolutions)
    for layer in norms:
        assert (layer.weight == 1).all()
        assert (layer.bias == 0).all()


def test_pooling_before_the_relu_is_the_papers_order() -> None:
    torch.manual_seed(0)
    body = Conv4(1, width=8)
    x = torch.rand(3, 1, 28, 28)
    want = x
    for block in list(body)[:4]:
        convolution, norm = block[0], block[1]
        want = functional.conv2d(want, convolution.weight, padding=1)
        mean, spread = want.mean((0, 2, 3), keepdim=True), want.var((0, 2, 3), unbiased=False, keepdim=True)
        want = ((want - mean) / (spread + norm.eps).sqrt()).relu()
        want = functional.max_pool2d(want, 2)
    torch.testing.assert_close(body(x), want.flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_bfloat16_is_close_and_gives_float32(name: str) -> None:
    try:
        pick_precision("bfloat16", torch.device("cpu"))
    except MetarepError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    encoder = build_encoder(name, plain(28), **({} if name == "efficientnet-lite" else {"width": 8})).eval()
    exact = encoder(noise(4, 1, 28, 28))
    encoder.precision = "bfloat16"
    rough = encoder(noise(4, 1, 28, 28))
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert (rough - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_and_floats_give_the_same(channels: int) -> None:
    pre = Preprocess((9, 11), channels, (0.3,) * channels, (0.2,) * channels)
    x = noise(3, channels, 20, 14)
    torch.testing.assert_close(pre(x), pre(x.float() / 255), rtol=1e-5, atol=1e-5)
    assert pre(x.double() / 255).dtype == torch.float64
    assert pre(x).dtype == torch.float32


def test_each_channel_is_standardised() -> None:
    x = noise(2, 3, 4, 4)
    mean, std = (0.5, 0.4, 0.1), (0.2, 0.3, 0.7)
    got = Preprocess((4, 4), 3, mean, std)(x)
    for c in range(3):
        torch.testing.assert_close(got[:, c], (x[:, c].float() / 255 - mean[c]) / std[c])


def test_inverted_images_are_what_is_standardised() -> None:
    x = noise(2, 1, 4, 4)
    got = Preprocess((4, 4), 1, (0.1,), (0.5,), invert=True)(x)
    torch.testing.assert_close(got, ((1 - x.float() / 255) - 0.1) / 0.5)
    ground = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    assert plain(4, invert=True)(ground).abs().max() < 1e-6


def test_channels_are_repeated_or_turned_into_luma() -> None:
    grey, colour = noise(2, 1, 4, 4), noise(2, 3, 4, 4)
    assert torch.equal(plain(4, 3)(grey), plain(4)(grey).repeat(1, 3, 1, 1))
    luma = np.stack([np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) for image in colour])
    assert (plain(4)(colour)[:, 0] * 255 - torch.from_numpy(luma)).abs().max() < 1
    with pytest.raises(MetarepError, match="images have 4 channels"):
        plain(4, 3)(noise(2, 4, 4, 4))


@pytest.mark.parametrize("size", [(10, 10), (7, 13), (40, 30)])
def test_resizing_is_pillows(size: tuple[int, int]) -> None:
    x = functional.interpolate(noise(2, 1, 5, 5).float(), (20, 26), mode="bicubic").clamp(0, 255).byte()
    got = Preprocess(size, 1, (0.0,), (1.0,))(x)
    for image, small in zip(x, got, strict=True):
        want = Image.fromarray(image[0].numpy()).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        assert (small[0] * 255 - torch.from_numpy(np.array(want).astype(np.float32))).abs().max() < 1.01


def test_preprocessing_that_suits_a_bank() -> None:
    drawings = noise(10, 1, 8, 8) // 2
    drawings[..., 0], drawings[..., -1], drawings[..., 0, :], drawings[..., -1, :] = 255, 255, 255, 255
    assert Preprocess.of(ImageBank.from_arrays(drawings)) == plain(8, invert=True)
    photos = noise(50, 3, 8, 8)
    suited = Preprocess.of(ImageBank.from_arrays(photos))
    assert not suited.invert
    out = suited(photos)
    assert out.mean((0, 2, 3)).abs().max() < 1e-3
    assert (out.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert not Preprocess.of(ImageBank.from_arrays(photos[:, :1])).invert, "grey photographs have no light border"
    black = Preprocess.of(ImageBank.from_arrays(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)))
    assert black(torch.zeros(1, 1, 8, 8)).isfinite().all()


@pytest.mark.parametrize(("side", "block"), [(21, 5), (10, 5), (5, 5), (2, 5), (12, 1)])
def test_dropblock_drops_its_share_and_keeps_the_sum(side: int, block: int) -> None:
    """Squares may overlap, so the share is a little below the rate, never above it by more than chance."""
    layer, x = DropBlock(0.1, block), torch.ones(600, 4, side, side)
    layer.generator = Generator().manual_seed(0)
    out = layer(x)
    dropped = (out == 0).float().mean().item()
    squares = 2400 * max(1, (side // block) ** 2)
    assert 0.085 - 4 * 0.3 / math.sqrt(squares) < dropped < 0.1 + 4 * 0.3 / math.sqrt(squares)
    assert out.sum().item() == pytest.approx(x.sum().item(), rel=1e-4)
    assert len(out[out > 0].unique()) == 1
    assert out[0].ne(out[1]).any()


def test_dropblock_drops_squares() -> None:
    layer = DropBlock(0.02, 3)
    layer.generator = Generator().manual_seed(0)
    holes = (layer(torch.ones(50, 1, 12, 12)) == 0).float()
    assert holes.any()
    full = (functional.avg_pool2d(holes, 3, stride=1) > 0.99).float()  # where a whole square is gone
    covered = functional.max_pool2d(functional.pad(full, [2] * 4), 3, stride=1)
    assert torch.equal(covered, holes), "every dropped unit lies in a dropped 3x3 square inside the map"


def test_the_last_two_blocks_drop() -> None:
    rates = [layer.rate for layer in ResNet12(1, width=2, drop=0.3).modules() if isinstance(layer, DropBlock)]
    assert rates == [0.0, 0.0, 0.3, 0.3]


def test_dropblock_is_off_in_evaluation_and_at_rate_zero() -> None:
    x = torch.rand(4, 3, 8, 8)
    assert DropBlock(0.5).eval()(x) is x
    assert DropBlock(0.0)(x) is x
    assert DropBlock(0.9)(torch.ones(64, 1, 2, 2)).isfinite().all()


def test_dropblock_draws_from_its_generator() -> None:
    layer, x = DropBlock(0.3), torch.rand(4, 3, 8, 8)
    out = []
    for seed in (1, 1, 2):
        layer.generator = Generator().manual_seed(seed)
        out.append(layer(x))
    assert torch.equal(out[0], out[1])
    assert not torch.equal(out[0], out[2])


class Mean(nn.Module):
    """A body of a user's own, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Wrong(nn.Module):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


def test_a_third_party_body_works() -> None:
    encoder = Encoder(Mean(), plain(8, 3))
    assert (encoder.dim, encoder.arch) == (3, {"name": "Mean"})
    x = noise(5, 3, 8, 8)
    torch.testing.assert_close(encoder(x), x.float().mean((2, 3)) / 255)
    training = nn.Sequential(nn.Flatten(), nn.Linear(64, 7)).train()
    assert Encoder(training, plain(8)).dim == 7
    assert training.training, "measuring must not change the mode"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda x: x, r"gives \(1, 1, 8, 8\) for one image; an encoder gives \(1, dim\)"),
        (lambda x: x.mean(), r"gives \(\) for one image"),
        (lambda x: x.flatten(), r"gives \(64,\) for one image"),
        (lambda x: (x.flatten(1), x), "Wrong gives a tuple for one image"),
        (
            lambda x: {"a": x.flatten(1), "b": x},
            r"gives a dict for one image \(a \(1, 64\), b \(1, 1, 8, 8\)\); .* wrap it",
        ),
        (lambda x: x @ torch.ones(3, 3), "images of 8 x 8 px do not fit Wrong"),
    ],
)
def test_a_body_of_the_wrong_shape_is_a_clear_error(answer: Any, text: str) -> None:
    with pytest.raises(MetarepError, match=text):
        Encoder(Wrong(answer), plain(8))


def test_images_too_small_and_unknown_names_are_clear_errors() -> None:
    with pytest.raises(MetarepError, match="images of 8 x 8 px do not fit"):
        build_encoder("conv4", plain(8))
    with pytest.raises(MetarepError, match="unknown encoder 'conv5'; did you mean 'conv4'"):
        build_encoder("conv5", plain(28))
    with pytest.raises(MetarepError, match="unknown setting of conv4 'widht'; did you mean 'width'"):
        build_encoder("conv4", plain(28), widht=3)
    with pytest.raises(MetarepError, match="'wider' is not one of wide, narrow"):
        build_encoder("resnet12", plain(28), width=2, growth="wider")
