"""Checkpoints of vision transformers: timm's layout, and those of other publishers."""

from __future__ import annotations

import functools
import math
import re

import numpy as np

from pfm_jax.backbones.backbone import Layout, Path, Tensors, one_to_one

ROPE_BASE = 100.0
"""Of the periods of rotary positions."""

HEAD_WIDTH = 64
"""Channels of a head, in all networks with rotary positions."""


def layout(last: int, *, rotary: bool) -> Layout:
    """Layout of a transformer of which the blocks up to `last` are used.

    `rotary`: with rotary positions, as DINOv3, instead of a position embedding.
    """
    unused = re.compile(rf"(blocks\.{_above(last)}|norm|fc_norm|head|local_cls_norm)\.|mask_token$")
    return one_to_one(_torch_name, unused, functools.partial(_canonical, rotary=rotary))


def periods(head_width: int) -> np.ndarray:
    """Periods `[head_width / 4]` of rotary positions, float32."""
    count = head_width // 4
    return (ROPE_BASE ** (np.arange(count) / count)).astype(np.float32)


def _above(last: int) -> str:
    """Pattern of the numbers above `last`, up to 99."""
    return "(" + "|".join(map(str, range(last + 1, 100))) + ")"


def _torch_name(path: Path) -> str:
    if len(path) == 1:
        return "rope_embed.periods" if path[0] == "rope_periods" else path[0]
    place, leaf = path[:-1], path[-1]
    name = "patch_embed.proj" if place == ("patch_embed",) else ".".join(place).replace("_", ".")
    ends = {"kernel": "weight", "scale": "weight"}
    return f"{name}.{ends.get(leaf, leaf.replace('_', '.'))}"


RENAMED = (
    ("register_tokens", "reg_token"),
    ("storage_tokens", "reg_token"),
    (".gamma_1", ".ls1.gamma"),
    (".gamma_2", ".ls2.gamma"),
    (".mlp.w12.", ".mlp.fc1."),
    (".mlp.w1.", ".mlp.fc1_g."),
    (".mlp.w2.", ".mlp.fc1_x."),
    (".mlp.w3.", ".mlp.fc2."),
)
"""Parts of names in other layouts -> here."""


def _canonical(tensors: Tensors, rotary: bool) -> Tensors:
    """Brings the layouts of publishers into timm's, in which the class token has no position."""
    found: Tensors = {}
    for key, tensor in tensors.items():
        for old, new in RENAMED:
            key = key.replace(old, new)
        found[key] = tensor
    for gate in [key for key in found if ".mlp.fc1_g." in key]:
        if (other := gate.replace("fc1_g", "fc1_x")) in found:
            both = found.pop(gate), found.pop(other)
            found[gate.replace("fc1_g", "fc1")] = np.concatenate(both)
    if not rotary:
        return _merged(found)
    found.setdefault("rope_embed.periods", periods(HEAD_WIDTH))
    return _masked(_joined(found))


def _merged(tensors: Tensors) -> Tensors:
    """Adds the class token's position to it, if it has one."""
    positions, token = tensors.get("pos_embed"), tensors.get("cls_token")
    if positions is None or token is None or positions.ndim != 3:
        return tensors
    first, patches = positions[:, :1], positions[:, 1:]
    if token.shape != first.shape or math.isqrt(patches.shape[1]) ** 2 != patches.shape[1]:
        return tensors
    return tensors | {"cls_token": token + first, "pos_embed": patches}


def _joined(tensors: Tensors) -> Tensors:
    """Joins the biases of queries and values, with 0 for keys; all are 0 if no block has any."""
    parts = ("qkv.bias", "q_bias", "v_bias")
    none = not any(key.endswith(parts) for key in tensors)
    found = dict(tensors)
    for key in [key for key in tensors if key.endswith("attn.qkv.weight")]:
        place, zero = key.removesuffix("qkv.weight"), np.zeros(len(tensors[key]) // 3, np.float32)
        query, value = f"{place}q_bias", f"{place}v_bias"
        if none:
            found[f"{place}qkv.bias"] = np.concatenate([zero] * 3)
        elif query in found and value in found:
            joined = found.pop(query), zero, found.pop(value)
            found[f"{place}qkv.bias"] = np.concatenate(joined)
    return found


def _masked(tensors: Tensors) -> Tensors:
    """Sets the biases to 0 where their masks are 0, as for keys, whatever the file holds there."""
    found = {key: tensor for key, tensor in tensors.items() if not key.endswith(".bias_mask")}
    for key in [key for key in tensors if key.endswith("qkv.bias_mask")]:
        bias, mask = key.removesuffix("_mask"), tensors[key]
        if bias in found:
            found[bias] = np.where(mask == 0, 0, found[bias] * mask)
    return found
