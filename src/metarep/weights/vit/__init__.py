"""Published vision transformers: files of DINO, DINOv2, DINOv3, MAE, CLIP and SigLIP, as encoders of this library."""

from metarep.weights.vit.file import VIT_FILES, open_vit
from metarep.weights.vit.layouts import ARCHS as VIT_ARCHS

__all__ = ["VIT_ARCHS", "VIT_FILES", "open_vit"]
