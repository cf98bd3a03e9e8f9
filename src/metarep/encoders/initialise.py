"""How weights start, for every encoder of ours."""

from torch import nn


def initialise(module: nn.Module, *, slope: float = 0.0) -> None:
    """Kaiming-normal convolutions (fan out, for a leaky ReLU of ``slope``), unit norm scales, zero biases.

    He et al., Delving Deep into Rectifiers, 2015. A convolution's weights have standard deviation
    ``sqrt(2 / (1 + slope**2) / (out_channels * kernel_height * kernel_width))``.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=slope, mode="fan_out", nonlinearity="leaky_relu")
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
