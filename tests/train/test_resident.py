"""Examples that lie whole on the device give what those of the host give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpcore.config import AugmentationConfig, RuntimeFlags, parse_config
from dpcore.data.transforms import GeometryDraw, draw_geometry
from dpcore.errors import BadInput, Unavailable
from dpcore.train import resident
from dpcore.train.resident import resident_crops, resident_features
from dpcore.train.sources import FeatureInputs, ImageInputs

CPU = torch.device("cpu")
WANTED = np.array([5, 0, 5, 2], dtype=np.int64)


class Crops:
    """Random crops 20 x 16."""

    def __init__(self, count: int) -> None:
        self._images = np.random.default_rng(0).integers(0, 256, (count, 20, 16, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._images)

    def images(self, indices: np.ndarray) -> np.ndarray:
        return self._images[indices][:, :, ::-1]  # negative strides, as mirrored crops have


class Uniform:
    """Uniform numbers from a seed."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(1)

    def uniform(self, count: int, /) -> np.ndarray:
        return self._generator.random(count)


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "free_bytes", lambda device: 10**9)


@pytest.mark.parametrize("stem", [None, torch.nn.Conv2d(3, 2, 3)])
def test_resident_crops_are_those_of_the_host(stem: torch.nn.Module | None) -> None:
    ours, theirs = resident_crops(Crops(1500), stem, CPU), ImageInputs(Crops(1500), stem, CPU)
    assert len(ours) == len(theirs)
    assert torch.equal(ours.take(WANTED, None), theirs.take(WANTED, None))
    flips = GeometryDraw(affine=GeometryDraw.identity(4).affine, flip=np.array([True, False, False, True]))
    assert torch.equal(ours.take(WANTED, flips), theirs.take(WANTED, flips))


def test_resident_crops_are_augmented_as_those_of_the_host_to_one_grey_level() -> None:
    config = AugmentationConfig(flip_prob=0.5, scale_frac=0.25, rotate_deg=30, rotate_prob=0.6)
    rows, draw = np.arange(60), draw_geometry(config, 60, Uniform())
    ours, theirs = (inputs.take(rows, draw) for inputs in (resident_crops(Crops(60), None, CPU), ImageInputs(Crops(60), None, CPU)))
    levels = (ours - theirs).abs() * 127.5
    assert float(levels.max()) < 1.01
    assert float((levels > 0.5).float().mean()) < 5e-3
    assert torch.equal(resident_crops(Crops(60), None, CPU).take(rows[7:9], draw[7:9]), ours[7:9])


def test_resident_features_are_those_of_the_file() -> None:
    stored = FeatureInputs(np.random.default_rng(2).random((6, 3, 2, 2)).astype(np.float16), CPU)
    ours = resident_features(stored)
    assert ours.take(WANTED, None).equal(stored.take(WANTED, None))
    with pytest.raises(BadInput, match="cached features know no augmentation"):
        ours.take(WANTED, GeometryDraw.identity(4))


def test_photometry_is_not_left_out_in_silence() -> None:
    draw = draw_geometry(AugmentationConfig(photometric_frac=0.3), 4, Uniform())
    with pytest.raises(BadInput, match="photometry is computed on the CPU"):
        resident_crops(Crops(6), None, CPU).take(WANTED, draw)


def test_data_that_do_not_fit_are_refused_with_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "free_bytes", lambda device: 3 * 10**6)
    with pytest.raises(Unavailable, match=r"0\.00 GB of examples need at most half of the device's 0\.00 GB"):
        resident_crops(Crops(1600), None, CPU)


def test_data_on_a_device_need_one() -> None:
    with pytest.raises(BadInput, match="data_on_device needs device cuda, given cpu"):
        parse_config(RuntimeFlags, {"data_on_device": True})
