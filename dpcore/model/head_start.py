"""Starts a head from a network's own COCO heat maps, so that it decodes MPII joints before any training.

The limbs exist in both skeletons. Pelvis, thorax, neck and head top do not: their maps are mixtures of logits. Around
its peak a logit map is nearly quadratic, so a weighted sum of maps peaks at the weighted mean of their peaks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from dpcore.errors import BadInput
from dpcore.model.head import MarginalHead
from dpcore.pose.skeleton import COCO_17, COCO_TO_MPII, MPII_16

HEAT_LAYER = "heat.out"
_WITHOUT_COUNTERPART: Mapping[str, Mapping[str, float]] = {
    "upper_neck": {"l_shoulder": 0.35, "r_shoulder": 0.35, "nose": 0.3},
    "head_top": {"nose": 0.2, "l_eye": 0.2, "r_eye": 0.2, "l_ear": 0.2, "r_ear": 0.2},
}
"""MPII joints that COCO does not label: the neck between shoulders and face, the head top where the face is."""


def coco_mixture(joint: int) -> dict[int, float]:
    """The COCO heat maps that an MPII joint starts from, with weights that sum to 1."""
    if joint in COCO_TO_MPII:
        parents = COCO_TO_MPII[joint]
        return {parent: 1.0 / len(parents) for parent in parents}
    return {COCO_17.index(name): share for name, share in _WITHOUT_COUNTERPART[MPII_16[joint]].items()}


def start_from_heat_maps(head: nn.Module, channels: Mapping[str, int]) -> None:
    """Points `head`'s 1x1 convolution at the heat maps among the features and sets its linear maps to interpolation.

    Args:
        head: a marginal head; the flat one has no marginals to read a peak from.
        channels: channels of each feature layer, in the order of the concatenation.

    Raises:
        BadInput: the head is not marginal, or the features lack the 17 heat maps.
    """
    if not isinstance(head, MarginalHead):
        raise BadInput("model.head_start heatmap needs model.head marginal; with head flat give head_start random")
    if channels.get(HEAT_LAYER) != len(COCO_17):
        raise BadInput(
            f"model.head_start heatmap needs {HEAT_LAYER} ({len(COCO_17)} maps) in model.feature_layers, given {', '.join(channels)}"
        )
    names = list(channels)
    first = sum(channels[name] for name in names[: names.index(HEAT_LAYER)])
    weight = torch.zeros_like(head.to_maps.weight)
    for joint in range(len(MPII_16)):
        for coco_joint, share in coco_mixture(joint).items():
            weight[joint, first + coco_joint, 0, 0] = share
    with torch.no_grad():
        head.to_maps.weight.copy_(weight)
        if head.to_maps.bias is not None:
            head.to_maps.bias.zero_()
    head.start_interpolating()
