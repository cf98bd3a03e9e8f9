"""Reference learners, with which an accuracy must be compared: raw pixels and an untrained encoder."""

import torch

from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.encoders.onnx import OnnxBody
from metarep.learners import Prototypes


def raw_pixels(preprocess: Preprocess) -> Prototypes:
    """A nearest class mean classifier of raw pixels, by cosine similarity.

    Args:
        preprocess: size, channels and normalisation of the images.

    >>> raw_pixels(Preprocess((4, 4), 1, (0.5,), (0.5,))).encoder.dim
    16
    """
    return Prototypes(Encoder(torch.nn.Flatten(), preprocess, {"name": "pixels"}), "cosine")


def has_untrained(encoder: Encoder) -> bool:
    """Whether there is an untrained form of an encoder. An ONNX graph holds its weights, so it has none.

    Args:
        encoder: any encoder.
    """
    return not isinstance(encoder.body, OnnxBody)


def untrained(encoder: Encoder, seed: int = 0) -> Prototypes:
    """A nearest class mean classifier of an untrained encoder, by cosine similarity.

    Args:
        encoder: gives the architecture and the preprocessing.
        seed: seed of the random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_encoder(preprocess=encoder.preprocess, **encoder.arch)
    return Prototypes(fresh, "cosine")
