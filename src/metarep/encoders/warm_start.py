"""Warm start: initialise an encoder from a trained one."""

import copy

from metarep.encoders.encoder import Encoder
from metarep.encoders.feature_spread import drop_feature_statistics
from metarep.encoders.low_rank import low_rank_parameters, merge_low_rank
from metarep.errors import Advice, MetarepError


def warm_start(encoder: Encoder, trained: Encoder, name: str) -> None:
    """Initialise an encoder with the weights and the preprocessing of a trained one.

    Args:
        encoder: changed in place.
        trained: an encoder of the same architecture, for images of the same size, channels and polarity.
        name: name of the run that ``trained`` is from, for the message.

    Raises:
        MetarepError: the architectures or the images of the two encoders differ.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> start, trained = (build_encoder("conv4", Preprocess((28, 28), 1, (mean,), (1.0,))) for mean in (0.0, 0.5))
    >>> warm_start(start, trained, "runs/protonet")
    >>> start.preprocess.mean, start.body[0][0].weight.equal(trained.body[0][0].weight)
    ((0.5,), True)
    """
    refuse_other_images(encoder, trained, name)
    body = trained.body
    if low_rank_parameters(body):
        body = copy.deepcopy(body)  # as a plain encoder: with its low-rank updates in its weights
        merge_low_rank(body)
    weights = body.state_dict()
    shapes = {key: tuple(value.shape) for key, value in encoder.body.state_dict().items()}
    if trained.arch["name"] != encoder.arch["name"] or shapes != {k: tuple(v.shape) for k, v in weights.items()}:
        raise MetarepError(
            f"{name} has the encoder {trained.arch}, and this training {encoder.arch}",
            advice=Advice("choose {encoder} and {width} like its", encoder=..., width=...),
        )
    encoder.body.load_state_dict(weights)
    encoder.preprocess = trained.preprocess
    drop_feature_statistics(encoder)


def refuse_other_images(encoder: Encoder, trained: Encoder, name: str) -> None:
    """Raise if a trained encoder is for images of another size, number of channels or polarity.

    Args:
        encoder: the encoder to train.
        trained: the trained one.
        name: name of the run that ``trained`` is from, for the message.

    Raises:
        MetarepError: the images of the two encoders differ.
    """
    for what in ("size", "channels", "invert"):
        new, known = getattr(encoder.preprocess, what), getattr(trained.preprocess, what)
        if new != known:
            raise MetarepError(
                f"{name} was trained on images with {what} {known}, and these have {new}",
                advice=(
                    "start from a run on images like these",
                    Advice("choose {data} and {size} like its", data=..., size=...),
                ),
            )
