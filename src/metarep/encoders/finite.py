"""Finiteness: features that are no numbers are refused, and it is said whether the image or the encoder is to blame."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from metarep.encoders.encoder import Encoder
from metarep.errors import DataError, MetarepError


def refuse_lost_rows(rows: Shaped[Tensor, "n *row"], encoder: Encoder, name: Callable[[int], str]) -> None:
    """Raise if what an encoder gave holds NaN or infinity. Distances to such a row mean nothing: the first class wins.

    Args:
        rows: of each image what was prepared of it; whole numbers, as pixels are, pass.
        encoder: whose features they are.
        name: what to call the image of a row.

    Raises:
        DataError: of one image or of some; the first is named.
        MetarepError: the encoder is to blame; see :func:`lost_rows`.

    >>> from metarep import Preprocess
    >>> mean = Encoder(torch.nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,)))
    >>> try:
    ...     refuse_lost_rows(torch.tensor([[1.0], [float("nan")]]), mean, ["a.jpg", "b.jpg"].__getitem__)
    ... except DataError as error:
    ...     print(error)
    b.jpg gets features that are no finite numbers (NaN) from the encoder Flatten; leave it out
    """
    if lost := lost_rows(rows, encoder):
        raise lost_error(name(lost[0]), rows[lost[0]], encoder, more=len(lost) - 1)


def lost_rows(rows: Shaped[Tensor, "n *row"], encoder: Encoder) -> list[int]:
    """Which rows hold NaN or infinity.

    Raises:
        MetarepError: there are such rows, and the encoder has weights that are no numbers, or gives none for plain
            noise either: then it is not the images.
    """
    if not rows.is_floating_point() or not rows.numel():
        return []
    fine = rows.isfinite().flatten(1).all(1)
    if bool(fine.all()):
        return []
    refuse_lost_encoder(encoder)
    return (~fine).nonzero().flatten().tolist()


def lost_error(name: str, row: Tensor, encoder: Encoder, more: int = 0) -> DataError:
    """The error for an image whose features are no numbers."""
    what = "NaN" if bool(row.isnan().any()) else "infinity"
    others = f", and so do {more} more" if more else ""
    return DataError(
        f"{name} gets features that are no finite numbers ({what}) from the encoder {encoder.arch['name']}{others}; "
        f"leave {'them' if more else 'it'} out"
    )


def refuse_lost_features(features: Shaped[Tensor, "n *row"]) -> None:
    """Raise if features that somebody else made hold NaN or infinity.

    Raises:
        DataError: the first row that does.
    """
    if features.is_floating_point() and features.ndim > 1 and not bool(features.isfinite().all()):
        lost = (~features.isfinite().flatten(1).all(1)).nonzero().flatten()
        raise DataError(
            f"row {int(lost[0])} of {len(features)} rows of features holds NaN or infinity, as do {len(lost)} in all; "
            "leave such rows out"
        )


def refuse_lost_scores(scores: Float[Tensor, "n ways"], learner: nn.Module) -> None:
    """Raise for the first row of scores that are no finite numbers, though all features are.

    Raises:
        DataError: always, unless all scores are finite.
    """
    lost = (~scores.isfinite().all(-1)).nonzero().flatten()
    if len(lost):
        raise DataError(
            f"image {int(lost[0])} of {len(scores)} gets scores that are no finite numbers from "
            f"{type(learner).__name__}, though its features are: they may be too large to be compared. Scale them, or "
            "take another learner"
        )


def refuse_lost_encoder(encoder: Encoder) -> None:
    """Raise if an encoder gives no numbers, whatever the image.

    Raises:
        MetarepError: a weight is NaN or infinite; or features of noise are.
    """
    refuse_lost_weights(encoder)
    name = encoder.arch["name"]
    device = next((each.device for each in encoder.body.parameters()), torch.device("cpu"))
    wanted = encoder.preprocess
    noise = torch.randint(
        256, (2, wanted.channels, *wanted.size), dtype=torch.uint8, generator=Generator().manual_seed(0)
    )
    with torch.no_grad():
        if not bool(encoder(noise.to(device)).isfinite().all(1).any()):
            raise MetarepError(
                f"the encoder {name} gives no finite numbers for any image; its numbers may overflow: try it in float32"
            )


def refuse_lost_weights(encoder: Encoder) -> None:
    """Raise if a weight is no number. Features may be numbers all the same: a maximum passes over NaN, as may a ReLU.

    Raises:
        MetarepError: a parameter that is NaN or infinite, or a buffer that is NaN; it is named.
    """
    name = encoder.arch["name"]
    weights = {id(each) for each in encoder.body.parameters()}
    for place, value in encoder.body.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            # A buffer may hold infinity with reason: attention masks do.
            lost = not bool(value.isfinite().all()) if id(value) in weights else bool(value.isnan().any())
            if lost:
                raise MetarepError(
                    f"the encoder {name} has weights that are no finite numbers ({place}), so its features mean "
                    "nothing; train it anew, or take another file of weights"
                )
