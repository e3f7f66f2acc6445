import numpy as np
import pytest

from dpcore.config import AugmentationConfig
from dpcore.data.photometric import NUMBERS_PER_EXAMPLE, PhotometricDraw
from dpcore.data.transforms import draw_geometry


class Numbers:
    """Uniform numbers from a seed."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def uniform(self, count: int, /) -> np.ndarray:
        return self._generator.random(count)


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 16, 24, 3), dtype=np.uint8)


def test_strength_zero_changes_no_pixel() -> None:
    draw = PhotometricDraw.of(np.random.default_rng(0).random((3, NUMBERS_PER_EXAMPLE)), 0.0)
    assert np.array_equal(draw.apply_to_images(images()), images())


def test_gain_alone_scales_a_channel_and_cuts_at_white() -> None:
    numbers = np.full((1, NUMBERS_PER_EXAMPLE), 0.5)
    numbers[0, 4] = 0.0  # no clutter
    numbers[0, 1] = 1.0  # red gains by the full strength
    flat = np.full((1, 8, 8, 3), 100, dtype=np.uint8)
    flat[0, 0] = 250
    seen = PhotometricDraw.of(numbers, 0.5).apply_to_images(flat)
    assert (seen[0, 1:, :, 0] == 150).all()
    assert (seen[0, 0, :, 0] == 255).all()
    assert (seen[0, 1:, :, 1:] == 100).all()


def test_an_example_looks_the_same_alone_and_in_a_batch() -> None:
    draw = draw_geometry(AugmentationConfig(photometric_frac=0.7), 3, Numbers(0))
    together = draw.apply_to_images(images())
    for row in range(3):
        assert np.array_equal(together[row : row + 1], draw[row : row + 1].apply_to_images(images()[row : row + 1]))


def test_photometry_leaves_the_geometry_of_the_same_numbers_alone() -> None:
    plain = draw_geometry(AugmentationConfig(flip_prob=0.5, scale_frac=0.2), 4, Numbers(3))
    lit = draw_geometry(AugmentationConfig(flip_prob=0.5, scale_frac=0.2, photometric_frac=0.5), 4, Numbers(3))
    assert np.array_equal(plain.affine, lit.affine)
    assert np.array_equal(plain.flip, lit.flip)


@pytest.mark.parametrize("field", ["flip_prob", "scale_frac", "photometric_frac"])
def test_any_active_augmentation_rules_out_cached_features(field: str) -> None:
    assert AugmentationConfig().is_identity
    assert not AugmentationConfig(**{field: 0.3}).is_identity
