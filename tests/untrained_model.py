"""A model whose encoder has random weights, for what an encoder learns from the images of a user."""

import torch

from metarep import Model, Preprocess, build_encoder
from metarep.weights.own_network import represent


def untrained() -> Model:
    """An encoder of random weights, which has much to learn."""
    torch.manual_seed(0)
    encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,), invert=True), width=16)
    return Model(represent(encoder), {"name": "prototypes", "metric": "cosine"})
