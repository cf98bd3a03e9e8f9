"""NT-Xent and views of SimCLR from other libraries, for benchmarks/contrastive.py. metarep does not use them."""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from metarep.data.augment import preset

Loss = Callable[[Tensor, Tensor, float], Tensor]


def lightly_loss() -> Loss:
    _mend_torchvision()
    from lightly.loss import NTXentLoss

    made: dict[float, torch.nn.Module] = {}
    return lambda first, second, temperature: made.setdefault(temperature, NTXentLoss(temperature))(first, second)


def pml_loss() -> Loss:
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    made: dict[float, torch.nn.Module] = {}
    return lambda first, second, temperature: made.setdefault(
        temperature, SelfSupervisedLoss(NTXentLoss(temperature=temperature))
    )(first, second)


LOSSES: dict[str, Callable[[], Loss]] = {"lightly": lightly_loss, "pytorch-metric-learning": pml_loss}


def lightly_views(name: str, side: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """SimCLR's transform as lightly has it, with the settings of one of our presets; an image at a time, as it does."""
    _mend_torchvision()
    from lightly.transforms import SimCLRTransform

    ours = preset(name)
    assert ours is not None
    assert ours.crop is not None
    transform = SimCLRTransform(
        input_size=side,
        cj_prob=ours.jitter,
        cj_strength=1.0,
        cj_bright=ours.brightness,
        cj_contrast=ours.contrast,
        cj_sat=ours.saturation,
        cj_hue=ours.hue,
        min_scale=ours.crop[0],
        random_gray_scale=ours.grey,
        gaussian_blur=ours.blur,
        sigmas=ours.sigma,
        hf_prob=ours.flip,
        normalize=None,
    )

    def views(x: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [transform(Image.fromarray(image)) for image in x.permute(0, 2, 3, 1).contiguous().numpy()]
        return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])

    return views


def _mend_torchvision() -> None:
    """Name two operators that torchvision's builds for CUDA want at import, and that a processor's torch has not."""
    global _library
    if _library is None:
        _library = torch.library.Library("torchvision", "DEF")
        _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_library: torch.library.Library | None = None
