"""TimmBody: a network of timm, as the body of an encoder."""

from torch import Tensor, nn

from metarep.errors import MetarepError, missing_extra


class TimmBody(nn.Module):
    """Any network that timm names, without its classifier.

    timm needs torchvision, which must fit the torch that is installed.

    Args:
        channels: of the images.
        model: timm's name for it, such as ``resnet18``.
        pretrained: with timm's weights, from its cache or the network; a file of ours brings its own.

    Raises:
        MetarepError: timm does not work here, has no such model, or cannot get its weights.
    """

    def __init__(self, channels: int, *, model: str, pretrained: bool = False) -> None:
        super().__init__()
        try:
            import timm  # pyright: ignore[reportMissingImports]
        except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises RuntimeError
            raise missing_extra(f"the encoder timm:{model}", "timm", "timm", str(error)) from error
        try:
            self.network = timm.create_model(model, pretrained=pretrained, num_classes=0, in_chans=channels)
        except Exception as error:  # unknown names, no network, no such weights
            raise MetarepError(f"timm cannot make {model!r}: {error}") from error

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)
