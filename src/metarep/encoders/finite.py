"""Checks for NaN and infinite features; the error says whether the image or the encoder is the cause."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from metarep.encoders.encoder import Encoder
from metarep.errors import DataError, MetarepError


def refuse_lost_rows(rows: Shaped[Tensor, "n *row"], encoder: Encoder, name: Callable[[int], str]) -> None:
    """Raise if a row of features holds NaN or infinity.

    Distances to such a row mean nothing: the first class would win every time.

    Args:
        rows: the prepared features, one row an image. Integer rows (pixels) always pass.
        encoder: the encoder that made them.
        name: gives the name of an image by the number of its row.

    Raises:
        DataError: an image has such features. The message names the first one and counts the others.
        MetarepError: the encoder is the cause; see :func:`lost_rows`.

    >>> from metarep import Preprocess
    >>> mean = Encoder(torch.nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,)))
    >>> try:
    ...     refuse_lost_rows(torch.tensor([[1.0], [float("nan")]]), mean, ["a.jpg", "b.jpg"].__getitem__)
    ... except DataError as error:
    ...     print(error)
    b.jpg gets features that are not finite (NaN) from the encoder Flatten; leave it out
    """
    if lost := lost_rows(rows, encoder):
        raise lost_error(name(lost[0]), rows[lost[0]], encoder, more=len(lost) - 1)


def lost_rows(rows: Shaped[Tensor, "n *row"], encoder: Encoder) -> list[int]:
    """The numbers of the rows that hold NaN or infinity, in order.

    Raises:
        MetarepError: there are such rows, and the encoder is the cause: a weight is NaN or infinite, or its features of
            random noise are, too.

    >>> from metarep.encoders import Preprocess
    >>> mean = Encoder(torch.nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,)))
    >>> lost_rows(torch.tensor([[1.0], [float("nan")], [float("inf")]]), mean)
    [1, 2]
    """
    if not rows.is_floating_point() or not rows.numel():
        return []
    fine = rows.isfinite().flatten(1).all(1)
    if bool(fine.all()):
        return []
    refuse_lost_encoder(encoder)
    return (~fine).nonzero().flatten().tolist()


def lost_error(name: str, row: Tensor, encoder: Encoder, more: int = 0) -> DataError:
    """The error for an image whose features are NaN or infinite.

    Args:
        name: what to call the image.
        row: its features.
        encoder: the encoder that made them.
        more: how many other images have such features.
    """
    what = "NaN" if bool(row.isnan().any()) else "infinity"
    others = f", and so do {more} more" if more else ""
    return DataError(
        f"{name} gets features that are not finite ({what}) from the encoder {encoder.arch['name']}{others}; "
        f"leave {'them' if more else 'it'} out"
    )


def refuse_lost_features(features: Shaped[Tensor, "n *row"]) -> None:
    """Raise if features that were computed elsewhere hold NaN or infinity.

    Raises:
        DataError: some rows do. The message names the first one.

    >>> refuse_lost_features(torch.zeros(3, 2))
    """
    if features.is_floating_point() and features.ndim > 1 and not bool(features.isfinite().all()):
        lost = (~features.isfinite().flatten(1).all(1)).nonzero().flatten()
        raise DataError(
            f"row {int(lost[0])} of {len(features)} rows of features holds NaN or infinity ({len(lost)} rows do); "
            "leave such rows out"
        )


def refuse_lost_scores(scores: Float[Tensor, "n ways"], learner: nn.Module) -> None:
    """Raise if a row of scores holds NaN or infinity although all features are finite.

    Args:
        scores: the scores of each image.
        learner: the learner that gave them, for the message.

    Raises:
        DataError: some rows do. The message names the first one.
    """
    lost = (~scores.isfinite().all(-1)).nonzero().flatten()
    if len(lost):
        raise DataError(
            f"image {int(lost[0])} of {len(scores)} gets scores that are not finite from {type(learner).__name__}, "
            "although its features are finite: they may be too large to be compared. Scale them, or take another "
            "learner"
        )


def refuse_lost_encoder(encoder: Encoder) -> None:
    """Raise if an encoder gives NaN or infinite features for every image.

    Raises:
        MetarepError: a weight is NaN or infinite, or the features of random noise are.
    """
    refuse_lost_weights(encoder)
    name = encoder.arch["name"]
    device = next((each.device for each in encoder.body.parameters()), torch.device("cpu"))
    shape = (2, encoder.preprocess.channels, *encoder.preprocess.size)
    noise = torch.randint(256, shape, dtype=torch.uint8, generator=Generator().manual_seed(0))
    with torch.no_grad():
        if not bool(encoder(noise.to(device)).isfinite().all(1).any()):
            raise MetarepError(
                f"the encoder {name} gives features that are not finite for any image; they may overflow: try float32"
            )


def refuse_lost_weights(encoder: Encoder) -> None:
    """Raise if a weight of an encoder is NaN or infinite.

    Its features may be finite all the same, because a maximum or a ReLU may drop NaN.

    Raises:
        MetarepError: a parameter is NaN or infinite, or a buffer is NaN. The message names it.
    """
    name = encoder.arch["name"]
    weights = {id(each) for each in encoder.body.parameters()}
    for path, value in encoder.body.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            # A buffer may hold infinity on purpose: attention masks do.
            lost = not bool(value.isfinite().all()) if id(value) in weights else bool(value.isnan().any())
            if lost:
                raise MetarepError(
                    f"the encoder {name} has weights that are not finite ({path}), so its features mean nothing; "
                    "train it again, or take another file of weights"
                )
