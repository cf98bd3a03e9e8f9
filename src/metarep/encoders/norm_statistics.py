"""Statistics of batch norms: a trained network learns from new images, without labels, what their maps are like."""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn

from metarep.encoders.encoder import Encoder

AT_ONCE = 32  # images of a part


def batch_norms(encoder: Encoder) -> list[nn.BatchNorm2d]:
    """The batch norms of an encoder that have running statistics."""
    norms = (each for each in encoder.modules() if isinstance(each, nn.BatchNorm2d))
    return [each for each in norms if each.running_mean is not None]


@torch.no_grad()
def mix_statistics(encoder: Encoder, images: UInt8[Tensor, "n c h w"], share: float) -> None:
    """Gives the batch norms of an encoder statistics of its training images and of others, mixed.

    Images that are blurred, small or drawn have other means and variances in every layer than the images that a network
    was trained on. Its batch norms correct that where a part of their running statistics is that of the new images
    (Li et al., Revisiting Batch Normalization For Practical Domain Adaptation, 2016; Schneider et al., Improving
    Robustness against Common Corruptions by Covariate Shift Adaptation, 2020).

    The images pass in parts. In each, a norm mixes the statistics of the part with its own before it normalises, so the
    layers behind it see maps as they will be. To normalise by the part alone, as in training, would measure the
    layers behind under maps that they never meet again: that takes away accuracy where this adds it.

    Args:
        encoder: a trained encoder in evaluation mode, whose norms are changed.
        images: raw images at the encoder's size, at least one.
        share: the share of the new statistics, from 0 to 1.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,))).eval()
    >>> before = batch_norms(encoder)[0].running_var[0].item()
    >>> mix_statistics(encoder, torch.full((2, 1, 28, 28), 255, dtype=torch.uint8), 0.1)
    >>> before, round(batch_norms(encoder)[0].running_var[0].item(), 1)
    (1.0, 0.9)
    """
    mixers = [_Mixer(norm, share) for norm in batch_norms(encoder)]
    order = torch.randperm(len(images), generator=Generator().manual_seed(0))  # a part is of many classes
    for part in order.tensor_split(math.ceil(len(order) / AT_ONCE)):
        encoder(images[part])
    for mixer in mixers:
        mixer.finish()


class _Mixer:
    """A hook that mixes the statistics of a norm with those of each part, and at the end with those of all parts."""

    def __init__(self, norm: nn.BatchNorm2d, share: float) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.norm, self.share = norm, share
        self.own = norm.running_mean.float().clone(), norm.running_var.float().clone()
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []
        self.handle = norm.register_forward_pre_hook(self)

    def __call__(self, _: nn.Module, inputs: tuple[Float[Tensor, "b c h w"]]) -> None:
        variance, mean = torch.var_mean(inputs[0].float(), (0, 2, 3), correction=0)
        self.means.append(mean)
        self.variances.append(variance)
        self._mix(mean, variance)

    def finish(self) -> None:
        self.handle.remove()
        if self.means:  # else the layer was never used
            means = torch.stack(self.means)
            self._mix(means.mean(0), torch.stack(self.variances).mean(0) + means.var(0, correction=0))

    def _mix(self, mean: Float[Tensor, " c"], variance: Float[Tensor, " c"]) -> None:
        kept = self.norm.running_mean, self.norm.running_var
        for statistic, own, new in zip(kept, self.own, (mean, variance), strict=True):
            assert statistic is not None
            statistic.copy_(torch.lerp(own, new, self.share))
