"""Names of weights: those of the published vision transformers become those of ViT."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from metarep.errors import MetarepError

ANCHOR = re.compile(
    r"(|.*\.)(?:patch_embed\.proj|conv1|embeddings\.patch_embeddings(?:\.projection)?|embeddings\.patch_embedding)"
    r"\.weight"
)  # the patches, which every layout has; what stands before them is the prefix of all names of the tower
BLOCK = re.compile(r"(?:blocks|(?:encoder\.|model\.)?layers?|transformer\.resblocks)\.(?:\d+\.)?(\d+)\.(.*)")
PART = r"\.(weight|bias)"
OUTSIDE = (  # published name, name here
    (r"(?:embeddings\.)?(?:cls_token|class_embedding)", "class_token"),
    (
        r"(?:embeddings\.)?(?:pos_embed|position_embeddings|position_embedding\.weight|positional_embedding)",
        "positions",
    ),
    (r"(?:embeddings\.)?(?:register_tokens|storage_tokens|reg_token)", "registers"),
    (ANCHOR.pattern.removeprefix("(|.*\\.)").removesuffix("\\.weight") + PART, r"patch.\1"),
    (r"(?:norm_pre|ln_pre|pre_layrnorm|pre_layernorm)" + PART, r"norm_first.\1"),
    (r"(?:norm|ln_post|layernorm|post_layernorm)" + PART, r"norm.\1"),
    (r"head\.probe|attn_pool\.latent", "pool.probe"),
    (r"head\.attention\.in_proj_(weight|bias)", r"pool.qkv.\1"),
    (r"attn_pool\.(q|kv)" + PART, r"pool.\1.\2"),
    (r"(?:head\.attention\.out_proj|attn_pool\.proj)" + PART, r"pool.out.\1"),
    (r"(?:head\.layernorm|attn_pool\.norm)" + PART, r"pool.norm.\1"),
    (r"(?:head|attn_pool)\.mlp\.fc1" + PART, r"pool.mlp.up.\1"),
    (r"(?:head|attn_pool)\.mlp\.fc2" + PART, r"pool.mlp.down.\1"),
    (r"proj", "projection"),
    (r"visual_projection\.weight", "project.weight"),
)
INSIDE = (  # the same, of a block
    (r"(?:norm1|ln_1|layer_norm1|layernorm_before)" + PART, r"norm1.\1"),
    (r"(?:norm2|ln_2|layer_norm2|layernorm_after)" + PART, r"norm2.\1"),
    (r"(?:attn\.qkv\.|attn\.in_proj_)(weight|bias)", r"attention.qkv.\1"),
    (r"(?:attention\.attention\.|attention\.|self_attn\.)([qkv])(?:uery|ey|alue|_proj)" + PART, r"attention.\1.\2"),
    (r"attn\.([qkv])_bias", r"attention.\1.bias"),
    (r"(?:attn\.proj|attn\.out_proj|attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)" + PART,
     r"attention.out.\1"),
    (r"(?:ls|ls_|layer_scale|gamma_)([12])(?:\.gamma|\.lambda1|)", r"scale\1"),
    (r"mlp\.(?:fc1|fc1_x|c_fc|up_proj|w2|w12|weights_in)" + PART + r"|intermediate\.dense" + PART, r"mlp.up.\1\2"),
    (r"mlp\.(?:w1|fc1_g|gate_proj)" + PART, r"mlp.gate.\1"),
    (r"mlp\.(?:fc2|c_proj|down_proj|w3|weights_out)" + PART + r"|output\.dense" + PART, r"mlp.down.\1\2"),
)  # fmt: skip
IGNORED = re.compile(  # of training, of a classifier, or without an effect on the features
    r"(?:embeddings\.)?mask_token|embeddings\.position_ids|(?:decoder|dino_head|ibot_head|classifier|pooler|rope_embed).*"
    r"|head\..*|head_dist\..*|local_cls_norm\..*|.*\.bias_mask"
)


class Tower(NamedTuple):
    """An image tower whose weights have the names of ViT.

    Args:
        weights: the weights.
        published: the names in the file, without the prefix of the tower.
        prefix: what stands before the names of the tower in the file.
        rest: the other names of the file.
    """

    weights: dict[str, Tensor]
    published: frozenset[str]
    prefix: str
    rest: frozenset[str]


def find_tower(tensors: Mapping[str, Tensor]) -> Tower | None:
    """Find the image tower in the tensors of a file; None if there is none.

    Of several networks in one file the teacher is taken, as its authors do.

    Args:
        tensors: tensors by their published names.

    Raises:
        MetarepError: the tower has a weight that ViT does not have. The message names it.
    """
    prefixes = [match[1] for name, value in tensors.items() if (match := ANCHOR.fullmatch(name)) and value.ndim == 4]
    if not prefixes:
        return None
    prefix = min(prefixes, key=lambda each: ("teacher" not in each, len(each), each))
    inside = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if not any(BLOCK.fullmatch(name) for name in inside):
        return None
    outside = frozenset(tensors) - {prefix + name for name in inside}
    projection = prefix.removesuffix("vision_model.") + "visual_projection.weight"
    if projection in outside:
        inside["visual_projection.weight"] = tensors[projection]
    if any(name.startswith("norm_pre.") for name in inside) and _projects(inside):  # timm's CLIP: its projection
        inside["visual_projection.weight"] = inside.pop("head.weight")
    weights: dict[str, Tensor] = {}
    for name, value in inside.items():
        own = _own_name(name)
        if own is not None:
            weights[own] = value
        elif not IGNORED.fullmatch(name):
            raise MetarepError(f"its weight {prefix}{name} belongs to no vision transformer that is known")
    return Tower(_joined(weights), frozenset(inside), prefix, outside)


def _projects(inside: Mapping[str, Tensor]) -> bool:
    """Whether a tower has a layer ``head`` that projects: its bias is zero, which that of a classifier is not."""
    return "head.weight" in inside and not inside.get("head.bias", torch.zeros(1)).any()


def _own_name(name: str) -> str | None:
    """The name in ViT of a published name; None if ViT has no such weight."""
    block = BLOCK.fullmatch(name)
    for pattern, own in INSIDE if block else OUTSIDE:
        if match := re.fullmatch(pattern, block[2] if block else name):
            return (f"blocks.{block[1]}." if block else "") + match.expand(own)
    return None


def _joined(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the shapes of ViT: queries, keys and values in one layer, packed layers apart, no axis of one."""
    for prefix in sorted({name.rpartition(".q.")[0] for name in weights if name.endswith("attention.q.weight")}):
        parts = [weights.pop(f"{prefix}.{letter}.weight") for letter in "qkv"]
        weights[f"{prefix}.qkv.weight"] = torch.cat(parts)
    for name in [name for name in weights if name.endswith("attention.qkv.weight")]:
        weight, prefix = weights[name], name.removesuffix("qkv.weight")
        parts = [weights.pop(f"{prefix}{letter}.bias", weight.new_zeros(len(weight) // 3)) for letter in "qkv"]
        weights.setdefault(f"{prefix}qkv.bias", torch.cat(parts))  # DINOv3 has no bias of keys, or none at all
    for name in [name for name in weights if name.endswith("mlp.up.weight")]:
        prefix = name.removesuffix("up.weight")
        down = weights.get(f"{prefix}down.weight")
        if down is not None and len(weights[name]) == 2 * down.shape[1]:  # gate and product in one layer
            for part in ("weight", "bias"):
                weights[f"{prefix}gate.{part}"], weights[f"{prefix}up.{part}"] = weights[f"{prefix}up.{part}"].chunk(2)
    for part in ("weight", "bias"):
        if (packed := weights.pop(f"pool.qkv.{part}", None)) is not None:
            width = len(packed) // 3
            weights[f"pool.q.{part}"], weights[f"pool.kv.{part}"] = packed[:width], packed[width:]
    if (projection := weights.pop("projection", None)) is not None:
        weights["project.weight"] = projection.mT
    if "registers" in weights and not weights["registers"].numel():
        del weights["registers"]
    for name, axes in (("class_token", 1), ("positions", 2), ("registers", 2), ("pool.probe", 1)):
        if name in weights:
            shape = tuple(weights[name].shape)
            if weights[name].numel() != math.prod(shape[-axes:]):
                raise MetarepError(
                    f"its {name.replace('_', ' ')} has the shape {shape}, as in no network that is known"
                )
            weights[name] = weights[name].reshape(shape[-axes:])
    return weights
