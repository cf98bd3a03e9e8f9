"""Starting from a trained encoder: its weights, and how its images were scaled."""

from metarep.encoders.encoder import Encoder
from metarep.errors import Advice, MetarepError


def take_over(encoder: Encoder, trained: Encoder, name: str) -> None:
    """Give ``encoder`` the weights of a trained one, and the mean and deviation that its images were scaled by.

    Args:
        encoder: changed in place.
        trained: of the same architecture, for images of the same size, channels and polarity.
        name: of the run it is from, for the error.

    Raises:
        MetarepError: it is another architecture, or for other images.
    """
    ours, theirs = encoder.preprocess, trained.preprocess
    for what in ("size", "channels", "invert"):
        here, there = getattr(ours, what), getattr(theirs, what)
        if here != there:
            raise MetarepError(
                f"{name} was trained on images with {what} {there}, and these have {here}",
                advice=(
                    "start from a run on images like these",
                    Advice("choose {data} and {size} like its", data=..., size=...),
                ),
            )
    weights = trained.body.state_dict()
    shapes = {key: tuple(value.shape) for key, value in encoder.body.state_dict().items()}
    if trained.arch["name"] != encoder.arch["name"] or shapes != {k: tuple(v.shape) for k, v in weights.items()}:
        raise MetarepError(
            f"{name} has the encoder {trained.arch}, and this training {encoder.arch}",
            advice=Advice("choose {encoder} and {width} like its", encoder=..., width=...),
        )
    encoder.body.load_state_dict(weights)
    encoder.preprocess = theirs
