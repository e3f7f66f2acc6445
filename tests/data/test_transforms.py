"""Geometry draws: images and keypoints move together, pairs share a draw, streams are read in one fixed order."""

import numpy as np
import pytest
import torch

from dpcore.config import AugmentationConfig
from dpcore.data.synthetic import draw_record
from dpcore.data.transforms import GeometryDraw, draw_geometry, to_tensor
from dpcore.errors import BadInput
from dpcore.pose.skeleton import MPII_16

FULL = AugmentationConfig(flip_prob=0.5, scale_frac=0.25, rotate_deg=30, rotate_prob=0.6)


class Uniform:
    """A source that counts what is read of it."""

    def __init__(self, seed: int = 0) -> None:
        self.read = 0
        self._generator = np.random.default_rng(seed)

    def uniform(self, count: int, /) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        self.read += count
        return self._generator.random(count)


def test_a_bright_dot_lands_where_its_keypoint_lands() -> None:
    count, joints = 40, np.random.default_rng(1).integers(16, 48, size=(40, 2))
    images = np.zeros((count, 64, 80, 3), dtype=np.uint8)
    for row, (x, y) in enumerate(joints):
        images[row, y - 1 : y + 2, x - 1 : x + 2] = 200
    draw = draw_geometry(FULL, count, Uniform())
    moved = draw.apply_to_images(images)[..., 0].astype(float)
    points = np.repeat(joints[:, None].astype(float), 16, axis=1)
    landed, _ = draw.apply_to_keypoints(points, np.ones((count, 16), dtype=bool), height_px=64, width_px=80, skeleton=MPII_16)
    y, x = np.mgrid[0:64, 0:80]
    total = moved.sum(axis=(1, 2))
    seen = np.stack([(moved * x).sum(axis=(1, 2)) / total, (moved * y).sum(axis=(1, 2)) / total], axis=1)
    np.testing.assert_allclose(seen, landed[:, 0], atol=0.15)


def test_a_flip_mirrors_pixels_exactly_and_exchanges_left_and_right() -> None:
    person = draw_record("public", seed=0, index=0)
    draw = GeometryDraw(affine=GeometryDraw.identity(1).affine, flip=np.array([True]))
    np.testing.assert_array_equal(draw.apply_to_images(person.image[None])[0], person.image[:, ::-1])
    visible = np.arange(16)[None] != 0
    points, shown = draw.apply_to_keypoints(person.keypoints[None], visible, height_px=64, width_px=64, skeleton=MPII_16)
    np.testing.assert_allclose(points[0, 10], [63 - person.keypoints[15, 0], person.keypoints[15, 1]], rtol=1e-6)
    np.testing.assert_allclose(points[0, 9, 0], 63 - person.keypoints[9, 0], rtol=1e-6)
    assert np.flatnonzero(~shown[0]).tolist() == [5]


def test_the_identity_changes_nothing() -> None:
    person = draw_record("public", seed=0, index=0)
    draw = draw_geometry(AugmentationConfig(), 1, Uniform())
    np.testing.assert_array_equal(draw.apply_to_images(person.image[None])[0], person.image)
    points, _ = draw.apply_to_keypoints(person.keypoints[None], person.visible[None], height_px=64, width_px=64, skeleton=MPII_16)
    np.testing.assert_array_equal(points[0], person.keypoints)


def test_each_setting_leaves_the_other_draws_alone() -> None:
    source = Uniform()
    full = draw_geometry(FULL, 50, source)
    assert source.read == 200
    flips = draw_geometry(AugmentationConfig(flip_prob=0.5), 50, Uniform())
    np.testing.assert_array_equal(full.flip, flips.flip)
    scale = np.sqrt(np.linalg.det(full.affine[:, :, :2]))
    only_scale = draw_geometry(AugmentationConfig(scale_frac=0.25), 50, Uniform())
    np.testing.assert_allclose(scale, only_scale.affine[:, 0, 0])
    assert 0.75 <= scale.min() < 0.85
    assert 1.15 < scale.max() <= 1.25
    angle = np.degrees(np.arctan2(full.affine[:, 1, 0], full.affine[:, 0, 0]))
    assert 5 < np.abs(angle).max() <= 30
    assert 0.2 < (angle == 0).mean() < 0.6


def test_a_slice_of_a_draw_is_the_draw_of_the_slice_and_counts_must_agree() -> None:
    images = np.stack([draw_record("public", seed=0, index=index).image for index in range(6)])
    draw = draw_geometry(FULL, 6, Uniform())
    np.testing.assert_array_equal(draw[2:5].apply_to_images(images[2:5]), draw.apply_to_images(images)[2:5])
    with pytest.raises(BadInput, match="for 6 examples was applied to 2"):
        draw.apply_to_images(images[:2])


def test_pixels_beyond_the_border_are_constant_black() -> None:
    images = np.full((1, 32, 32, 3), 255, dtype=np.uint8)
    half = GeometryDraw(affine=np.array([[[0.5, 0, 0], [0, 0.5, 0]]]), flip=np.array([False]))
    moved = half.apply_to_images(images)[0]
    assert moved[0:6].max() == 0
    assert moved[16, 16].min() == 255


def test_to_tensor_scales_bytes_to_plus_minus_one() -> None:
    images = np.array([0, 255, 51], dtype=np.uint8).reshape(1, 1, 1, 3).repeat(2, axis=1)
    tensor = to_tensor(images)
    assert tensor.shape == (1, 3, 2, 1)
    torch.testing.assert_close(tensor[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))


def test_to_tensor_keeps_channels_last_and_rounds_like_a_division() -> None:
    """A copy to channels first costs more than all the rest, and slows the convolutions behind it."""
    images = np.random.default_rng(3).integers(0, 256, (3, 9, 7, 3), dtype=np.uint8)
    tensor = to_tensor(images[:, :, ::-1])
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    expected = torch.from_numpy(images[:, :, ::-1].copy()).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
    assert torch.equal(tensor, expected)
    copied = to_tensor(images[:, :, ::-1], channels_first=True)
    assert copied.is_contiguous()
    assert torch.equal(copied, expected)
