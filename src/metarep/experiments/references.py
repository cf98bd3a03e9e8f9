"""Reference rows: what an accuracy must be compared with before it means anything."""

import torch

from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.learners import Prototypes


def raw_pixels(preprocess: Preprocess) -> Prototypes:
    """Nearest class mean of the pixels themselves."""
    return Prototypes(Encoder(torch.nn.Flatten(), preprocess, {"name": "pixels"}), "cosine")


def untrained(encoder: Encoder, seed: int = 0) -> Prototypes:
    """Nearest class mean of an encoder of the same architecture that has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_encoder(preprocess=encoder.preprocess, **encoder.arch)
    return Prototypes(fresh, "cosine")
