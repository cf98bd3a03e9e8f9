"""Contrastive learning: the losses, networks and measures of methods that compare two views of an image."""

from metarep.methods.contrastive.collapse import COLLAPSED, effective_rank, gauge, spread
from metarep.methods.contrastive.key_queue import KeyQueue
from metarep.methods.contrastive.loss import info_nce, negative_cosine, nt_xent, sup_con
from metarep.methods.contrastive.moving_average import follow, frozen_copy
from metarep.methods.contrastive.projector import Projector
from metarep.methods.contrastive.sub_batches import check_groups, encode_blocks, encode_strides

__all__ = [
    "COLLAPSED",
    "KeyQueue",
    "Projector",
    "check_groups",
    "effective_rank",
    "encode_blocks",
    "encode_strides",
    "follow",
    "frozen_copy",
    "gauge",
    "info_nce",
    "negative_cosine",
    "nt_xent",
    "spread",
    "sup_con",
]
