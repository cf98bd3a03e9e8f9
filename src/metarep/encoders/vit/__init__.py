"""ViT: vision transformers of any published form, with all settings in the open."""

from metarep.encoders.vit.vit import SIZES, ViT

__all__ = ["SIZES", "ViT"]
