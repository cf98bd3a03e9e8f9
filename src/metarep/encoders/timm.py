"""TimmBody: a network of the package timm, as the body of an encoder."""

from importlib.util import find_spec

from torch import Tensor, nn

from metarep.errors import MetarepError, missing_extra


class TimmBody(nn.Module):
    """Any network that timm knows by name, without its classifier.

    timm needs torchvision, in a version that fits the installed torch.

    Args:
        channels: channels of the images.
        model: timm's name of the network, such as ``resnet18``.
        pretrained: load timm's weights, from its cache or the internet. A file of this library holds weights itself.

    Raises:
        MetarepError: timm cannot be imported, does not know the model, or cannot load its weights.
    """

    def __init__(self, channels: int, *, model: str, pretrained: bool = False) -> None:
        super().__init__()
        try:
            import timm  # pyright: ignore[reportMissingImports]
        except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises RuntimeError
            if find_spec("timm") is None:
                raise missing_extra(f"the encoder timm:{model}", "timm", "timm", str(error)) from error
            raise MetarepError(
                f"timm is installed and cannot be imported: {error}",
                advice="install the torchvision that belongs to the installed torch, from where that torch came",
            ) from error
        try:
            self.network = timm.create_model(model, pretrained=pretrained, num_classes=0, in_chans=channels)
        except Exception as error:  # unknown names, no network, no such weights
            raise MetarepError(f"timm cannot make {model!r}: {error}") from error

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(b, dim)`` of normalised images ``(b, c, h, w)``."""
        return self.network(x)
