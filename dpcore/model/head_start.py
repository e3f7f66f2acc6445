"""Starts a head from a network's own COCO heat maps, so that it decodes the skeleton's joints before any training.

The limbs exist in COCO and in most other skeletons. Pelvis, thorax, neck and head top do not: their maps are mixtures of logits. Around
its peak a logit map is nearly quadratic, so a weighted sum of maps peaks at the weighted mean of their peaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dpcore.errors import BadInput
from dpcore.model.fpn import MixedMaps
from dpcore.model.head import MarginalHead
from dpcore.pose.skeleton import COCO_17, Skeleton, mapping

HEAT_LAYER = "heat.out"
_WITHOUT_COUNTERPART: Mapping[str, Mapping[str, float]] = {
    "upper_neck": {"l_shoulder": 0.35, "r_shoulder": 0.35, "nose": 0.3},
    "head_top": {"nose": 0.2, "l_eye": 0.2, "r_eye": 0.2, "l_ear": 0.2, "r_ear": 0.2},
}
"""Joints that COCO does not label: the neck between shoulders and face, the head top where the face is."""
_FACE = ("nose", "l_eye", "r_eye", "l_ear", "r_ear")
_NECK_TO_FACE = 0.3
"""How far the upper neck lies on the way from the middle between the shoulders to the middle of the face. The median of MPII's poses puts
it at 0.18 of the way from the shoulders to the head top; the face's middle is taken halfway between those two, at 0.59."""
_CROWN_TO_TORSO = 0.065 / (0.818 - 0.530)
"""Height of the crown above the eyes over the length of the torso. Of a stature of 1, a head has 0.130, with the eyes in its middle;
shoulders are at 0.818, hips at 0.530 (Drillis and Contini, Body Segment Parameters, 1966)."""


def coco_mixtures(skeleton: Skeleton) -> list[dict[int, float]]:
    """For each joint of a skeleton the COCO heat maps that it starts from, with weights that sum to 1.

    Raises:
        BadInput: a joint has no counterpart among COCO's.
    """
    found = []
    for joint, parents in zip(skeleton.joints, mapping(COCO_17, skeleton), strict=True):
        if not parents and joint not in _WITHOUT_COUNTERPART:
            raise BadInput(f"model.head_start heatmap: no COCO heat map shows {joint} of {skeleton.name}; use head_start random")
        mixture = {COCO_17.index[name]: share for name, share in _WITHOUT_COUNTERPART.get(joint, {}).items()}
        found.append({parent: 1.0 / len(parents) for parent in parents} or mixture)
    return found


def coco_points(skeleton: Skeleton) -> list[dict[int, float]]:
    """For each joint of a skeleton the COCO keypoints whose weighted sum it is, with weights that sum to 1.

    Unlike maps, points may be extrapolated: the top of the head lies beyond the face, in the direction of the torso. On LSPET's training
    people it is then found in 63 % by PCKh@0.5; 1.7 times the way from the shoulders to the face gave 51 %.

    Raises:
        BadInput: as `coco_mixtures`.
    """
    found = coco_mixtures(skeleton)
    for joint, shares in _extrapolated().items():
        if joint in skeleton.index and joint not in COCO_17.index:
            found[skeleton.index[joint]] = {COCO_17.index[name]: share for name, share in shares.items()}
    return found


def _extrapolated() -> dict[str, dict[str, float]]:
    """The shares of COCO's keypoints in joints that no map shows."""
    face = dict.fromkeys(_FACE, 1 / len(_FACE))
    shoulders, hips = ({f"l_{part}": 0.5, f"r_{part}": 0.5} for part in ("shoulder", "hip"))
    return {
        "upper_neck": _scaled(face, _NECK_TO_FACE) | _scaled(shoulders, 1 - _NECK_TO_FACE),
        "head_top": face | _scaled(shoulders, _CROWN_TO_TORSO) | _scaled(hips, -_CROWN_TO_TORSO),
    }


def _scaled(shares: Mapping[str, float], by: float) -> dict[str, float]:
    return {name: by * share for name, share in shares.items()}


def share_matrix(parents_of: Sequence[Mapping[int, float]]) -> Tensor:
    """(K, 17): the share of each COCO joint in each joint, as `coco_mixtures` and `coco_points` give it."""
    shares = torch.zeros(len(parents_of), COCO_17.count)
    for joint, parents in enumerate(parents_of):
        for parent, share in parents.items():
            shares[joint, parent] = share
    return shares


def start_from_heat_maps(head: nn.Module, channels: Mapping[str, int], skeleton: Skeleton) -> None:
    """Points `head`'s 1x1 convolution at the heat maps among the features and sets its linear maps to interpolation.

    Args:
        head: one that starts from maps: marginal or fpn2d; the flat one has no marginals to read a peak from.
        channels: channels of each feature layer, in the order of the concatenation.
        skeleton: the joints that the head predicts.

    Raises:
        BadInput: the head is not marginal, the features lack the 17 heat maps, or a joint has no counterpart among them.
    """
    if not isinstance(head, MarginalHead | MixedMaps):
        raise BadInput("model.head_start heatmap needs model.head marginal or fpn2d; with another head give head_start random")
    if isinstance(head, MixedMaps) and list(channels) != [HEAT_LAYER]:
        raise BadInput(f"model.head fpn2d with head_start heatmap mixes {HEAT_LAYER}: give feature_layers [{HEAT_LAYER}]")
    if channels.get(HEAT_LAYER) != COCO_17.count:
        raise BadInput(
            f"model.head_start heatmap needs {HEAT_LAYER} ({COCO_17.count} maps) in model.feature_layers, given {', '.join(channels)}"
        )
    names = list(channels)
    first = sum(channels[name] for name in names[: names.index(HEAT_LAYER)])
    if isinstance(head, MixedMaps) and len(skeleton.joints) != head.to_maps.out_channels:
        raise BadInput(f"the head has {head.to_maps.out_channels} maps, {skeleton.name} has {len(skeleton.joints)} joints")
    weight = torch.zeros_like(head.to_maps.weight)
    for joint, mixture in enumerate(coco_mixtures(skeleton)):
        for coco_joint, share in mixture.items():
            weight[joint, first + coco_joint, 0, 0] = share
    with torch.no_grad():
        head.to_maps.weight.copy_(weight)
        if head.to_maps.bias is not None:
            head.to_maps.bias.zero_()
    head.start_interpolating()
