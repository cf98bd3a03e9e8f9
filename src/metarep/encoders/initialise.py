"""Initialisation of the weights of this library's encoders."""

from torch import nn


def initialise(module: nn.Module, *, slope: float = 0.0) -> None:
    """Initialise convolutions by the Kaiming normal rule (fan out); norm scales become 1 and norm biases 0.

    He et al., Delving Deep into Rectifiers, 2015. A convolution's weights have standard deviation
    ``sqrt(2 / (1 + slope**2) / (out_channels * kernel_height * kernel_width))``.

    Args:
        module: its layers are changed in place.
        slope: slope of the leaky ReLU behind the convolutions, on its negative side; 0 for a ReLU.

    >>> layer = nn.Conv2d(200, 200, 3)
    >>> initialise(layer)
    >>> round(layer.weight.std().item(), 3)  # (2 / (200 * 3 * 3)) ** 0.5
    0.033
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=slope, mode="fan_out", nonlinearity="leaky_relu")
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
