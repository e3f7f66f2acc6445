"""Compares pictures by PSNR and SSIM, over all pixels or over some."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dpcore.errors import BadInput

Images = NDArray[np.uint8]
Pixels = NDArray[np.bool_]

PEAK = 255.0
SSIM_SIGMA_PX = 1.5
SSIM_RADIUS_PX = 5
SSIM_C1, SSIM_C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
LUMINANCE = (0.299, 0.587, 0.114)


def psnr_db(pictures: Images, originals: Images, where: Pixels | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB over all chosen pixels of all images together.

    | input | result |
    |---|---|
    | the pictures are equal, or no pixel is chosen | None: the ratio is infinite |

    Args:
        pictures, originals: (B, H, W, 3) uint8.
        where: (B, H, W); None takes all.
    """
    _check_shapes(pictures, originals)
    total, count = 0.0, 0
    for row in range(len(pictures)):  # one image at a time: the float copies of a whole stack are 16 times its bytes
        squares = (pictures[row].astype(np.float64) - originals[row]) ** 2
        chosen = squares if where is None else squares[where[row]]
        total, count = total + float(chosen.sum()), count + chosen.size
    return None if total == 0.0 else float(10 * np.log10(PEAK**2 * count / total))


def ssim(pictures: Images, originals: Images, where: Pixels | None = None) -> float:
    """Mean structural similarity of the luminance over all chosen pixels of all images (Wang, Bovik, Sheikh, Simoncelli, IEEE TIP
    2004, eq. 13: 11x11 Gaussian window of 1.5 px, K1 = 0.01, K2 = 0.03). Windows at the border are mirrored.

    Args:
        pictures, originals: (B, H, W, 3) uint8.
        where: (B, H, W); None takes all. If no pixel is chosen, the result is 1.
    """
    _check_shapes(pictures, originals)
    total, count = 0.0, 0
    for row in range(len(pictures)):
        similarity = _ssim_map(pictures[row] @ np.array(LUMINANCE), originals[row] @ np.array(LUMINANCE))
        chosen = similarity if where is None else similarity[where[row]]
        total, count = total + float(chosen.sum()), count + chosen.size
    return total / count if count else 1.0


def _ssim_map(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    mean_one, mean_two = _windowed(one), _windowed(two)
    variance_one, variance_two = _windowed(one * one) - mean_one**2, _windowed(two * two) - mean_two**2
    covariance = _windowed(one * two) - mean_one * mean_two
    alike = (2 * mean_one * mean_two + SSIM_C1) * (2 * covariance + SSIM_C2)
    return np.asarray(alike / ((mean_one**2 + mean_two**2 + SSIM_C1) * (variance_one + variance_two + SSIM_C2)), dtype=np.float64)


def _windowed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(gaussian_filter(values, SSIM_SIGMA_PX, radius=SSIM_RADIUS_PX, mode="reflect"), dtype=np.float64)


def _check_shapes(pictures: Images, originals: Images) -> None:
    if pictures.shape != originals.shape:
        raise BadInput(f"pictures {pictures.shape} are compared with originals {originals.shape}: give stacks of the same shape")
