"""Encoders where images are only looked at: norms inside convolutions, and a few images at a time."""

import copy

import pytest
import torch
from torch import nn

from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.encoders.efficientnet_lite import EfficientNetLite, InvertedResidual, SameConv
from metarep.encoders.encoder import AT_ONCE
from metarep.encoders.fused import fused_layers

OWN = SameConv, InvertedResidual


@pytest.fixture(scope="module")
def body():
    torch.manual_seed(0)
    made = EfficientNetLite(3, mirror=True)
    made.train()(torch.rand(8, 3, 64, 64))  # statistics and scales that are not those of a start
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1, 0.3)
            nn.init.normal_(layer.bias, 0, 0.3)
    return made.eval()


def plainly(body, x):
    """With a gradient asked for, layers run as they are."""
    with torch.enable_grad():
        return body(x).detach()


@pytest.mark.parametrize("size", [(64, 64), (65, 65), (64, 65), (33, 50), (7, 6)])
def test_fused_layers_give_the_same_features(body, size):
    x = torch.rand(3, 3, *size)
    with torch.no_grad():
        assert fused_layers(body, x, *OWN) is not None
        torch.testing.assert_close(body(x), plainly(body, x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("write", ["in place", "through .data", "statistics", "loaded"])
def test_changed_weights_are_fused_again(body, write):
    mine, x = copy.deepcopy(body), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = mine(x)
        if write == "in place":
            mine[0].weight.mul_(0.5)
        elif write == "through .data":
            mine[0].weight.data.mul_(0.5)
        elif write == "statistics":
            mine[1].running_mean.add_(0.1)
        else:
            mine.load_state_dict({name: value + 0.01 for name, value in mine.state_dict().items()})
        after = mine(x)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, plainly(mine, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("where", ["image", "weight", "statistics"])
def test_nan_and_infinity_stay_in_the_features(body, where):
    """ReLU6 inside a convolution makes 6 of NaN."""
    mine, x = copy.deepcopy(body), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        mine(x)
        if where == "image":
            x[0, 0, 5, 5] = torch.nan
        elif where == "weight":
            mine[0].weight[0, 0, 0, 0] = torch.nan
        else:
            mine[1].running_var[0] = torch.nan
        assert mine(x)[0].isnan().any()


class Louder(nn.BatchNorm2d):
    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.slow
def test_changed_layers_are_not_fused(body):
    x, heard = torch.rand(2, 3, 32, 32), []
    hooked, other, patched = (copy.deepcopy(body) for _ in range(3))
    hooked[2].register_forward_hook(lambda *_: heard.append("hook"))
    other[1] = Louder(32, eps=1e-3).eval()
    patched[1].forward = lambda x: heard.append("patch") or x
    with torch.no_grad():
        for each in (hooked, other, patched):
            torch.testing.assert_close(each(x), plainly(each, x))
            assert fused_layers(each, x, *OWN) is None
    assert {"hook", "patch"} <= set(heard)


def test_layers_are_not_fused_where_they_must_run(body):
    x, double = torch.rand(2, 3, 32, 32), copy.deepcopy(body).double()
    assert fused_layers(body, x, *OWN) is None  # a gradient may be asked for
    with torch.no_grad():
        assert fused_layers(double, x.double(), *OWN) is None
        assert fused_layers(copy.deepcopy(body).train(), x, *OWN) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert fused_layers(body, x, *OWN) is None


def test_many_images_are_encoded_a_few_at_a_time():
    seen = []

    class Body(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x.flatten(1).mean(1, keepdim=True)

    preprocess = Preprocess((160, 160), 3, (0.5,) * 3, (0.5,) * 3)
    encoder, most = Encoder(Body(), preprocess).eval(), AT_ONCE // 160**2
    images = torch.randint(256, (2 * most + 1, 3, 160, 160), dtype=torch.uint8)
    seen.clear()
    with torch.no_grad():
        parts = encoder(images)
    assert seen == [most, most, 1]
    assert torch.equal(parts, encoder(images))  # where a gradient may be asked for, all at once
    assert seen[3:] == [2 * most + 1]


def test_images_with_common_batch_statistics_stay_together():
    """A norm without running statistics takes those of the batch, in evaluation too."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    encoder = Encoder(nn.Sequential(norm, nn.Flatten()), Preprocess((160, 160), 3, (0.5,) * 3, (0.5,) * 3)).eval()
    images = torch.randint(256, (AT_ONCE // 160**2 + 3, 3, 160, 160), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(encoder(images), encoder.features(encoder.preprocess(images)))


def test_small_images_are_encoded_hundreds_at_a_time():
    assert build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,))).at_once >= 256
