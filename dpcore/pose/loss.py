"""The training loss: one number per example, so that its gradient can be clipped per example."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcore.pose.codec import SimCCCodec


def simcc_loss(logits_x: Tensor, logits_y: Tensor, keypoints: Tensor, visible: Tensor, codec: SimCCCodec) -> Tensor:
    """KL divergence from the encoded keypoints to the predicted bins, on x and y, averaged over joints.

    Per joint it is KL(target_x ‖ softmax(logits_x)) + KL(target_y ‖ softmax(logits_y)), in nats. A joint that is not visible or lies
    outside the crop adds nothing. The divisor is K, not the number of visible joints, so an example with few labels has little
    weight.

    Guarantees: element b depends only on row b. There is no mean over the batch and no shared normaliser. The published code averages
    over the batch and multiplies by its visibilities. That couples examples and makes the per-example clip useless.

    Args:
        logits_x: (B, K, Wx).
        logits_y: (B, K, Wy).
        keypoints: (B, K, 2) px; NaN is allowed where not visible.
        visible: (B, K) bool.
        codec: gives the bins and the targets' width.

    Returns:
        (B,) losses, ≥ 0.

    Source: SimCC (arXiv:2107.03332), section 3.3, with KL summed over bins and not averaged.
    """
    counted = visible.bool() & codec.contains(keypoints)
    # where, not a product: 0 · NaN is NaN, in the loss and in its gradient
    placed = torch.where(counted.unsqueeze(-1), keypoints, torch.zeros_like(keypoints))
    target_x, target_y = codec.encode(placed)
    per_joint = _divergence(logits_x, target_x) + _divergence(logits_y, target_y)
    return torch.where(counted, per_joint, torch.zeros_like(per_joint)).sum(dim=-1) / keypoints.shape[-2]


def _divergence(logits: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(logits, dim=-1), target, reduction="none").sum(dim=-1)
