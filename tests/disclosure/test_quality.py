"""PSNR and SSIM by hand, at their ends, and over chosen pixels."""

import numpy as np
import pytest

from dpcore.data.synthetic import draw_record
from dpcore.disclosure.quality import psnr_db, ssim
from dpcore.errors import BadInput

PEOPLE = np.stack([draw_record("public", seed=0, index=index).image for index in range(4)])


def test_equal_pictures_have_no_psnr_and_an_ssim_of_one() -> None:
    assert psnr_db(PEOPLE, PEOPLE) is None
    assert ssim(PEOPLE, PEOPLE) == pytest.approx(1.0)


def test_psnr_of_a_constant_difference_is_worked_by_hand() -> None:
    flat = np.full((2, 16, 16, 3), 100, dtype=np.uint8)
    assert psnr_db(flat, flat + 10) == pytest.approx(20 * np.log10(255 / 10))


def test_ssim_of_two_constants_is_wangs_luminance_term() -> None:
    one, two = np.full((1, 32, 32, 3), 100, dtype=np.uint8), np.full((1, 32, 32, 3), 150, dtype=np.uint8)
    constant = (0.01 * 255) ** 2
    assert ssim(one, two) == pytest.approx((2 * 100 * 150 + constant) / (100**2 + 150**2 + constant))


def test_ssim_sees_lost_structure_where_the_error_is_as_large_as_a_shift() -> None:
    shifted = np.clip(PEOPLE.astype(int) + 12, 0, 255).astype(np.uint8)
    noisy = np.clip(PEOPLE + np.random.default_rng(0).choice([-12, 12], PEOPLE.shape), 0, 255).astype(np.uint8)
    assert psnr_db(shifted, PEOPLE) == pytest.approx(psnr_db(noisy, PEOPLE) or 0.0, abs=0.5)
    assert ssim(noisy, PEOPLE) < ssim(shifted, PEOPLE) - 0.1
    assert ssim(PEOPLE, noisy) == pytest.approx(ssim(noisy, PEOPLE))


def test_only_chosen_pixels_count() -> None:
    changed, where = PEOPLE.copy(), np.zeros(PEOPLE.shape[:3], dtype=bool)
    changed[:, :8, :8] ^= 255
    where[:, 40:, 40:] = True
    assert psnr_db(changed, PEOPLE, where) is None
    assert ssim(changed, PEOPLE, where) == pytest.approx(1.0)
    assert ssim(changed, PEOPLE, ~where) < 1.0
    assert ssim(changed, PEOPLE, np.zeros_like(where)) == 1.0


def test_stacks_of_two_shapes_are_refused() -> None:
    with pytest.raises(BadInput, match="the same shape"):
        ssim(PEOPLE, PEOPLE[:2])
    with pytest.raises(BadInput, match="the same shape"):
        psnr_db(PEOPLE, PEOPLE[:2])
