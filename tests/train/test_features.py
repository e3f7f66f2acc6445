"""Cached features of a frozen stem."""

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dpcore.config import AugmentationConfig, ModelConfig, Places, RuntimeFlags, TrialConfig
from dpcore.errors import BadInput
from dpcore.model.network import build_network
from dpcore.train.features import Stem, cached_features
from dpcore.train.inputs import NO_AUGMENTATION, InputBuilder
from dpcore.train.sources import FeatureInputs, ImageInputs, through_stem
from dpcore.train.trial_data import open_trial_data

Make = Callable[..., TrialConfig]
CPU = torch.device("cpu")


class _Ones:
    def __init__(self, count: int) -> None:
        self.count = count
        self.asked = 0

    def __len__(self) -> int:
        return self.count

    def images(self, indices: np.ndarray) -> np.ndarray:
        self.asked += 1
        return np.full((len(indices), 16, 16, 3), 255, dtype=np.uint8)


def _stem(scale: float) -> Stem:
    module = nn.Conv2d(3, 1, 1, bias=False)
    nn.init.constant_(module.weight, scale)
    return Stem.of(nn.Sequential(module.requires_grad_(False)), model=ModelConfig(), device=CPU)


def test_features_are_what_the_stem_gives_to_half_precision(train_places: Places, make_config: Make) -> None:
    data = open_trial_data(make_config("public_only"), train_places, RuntimeFlags())
    split = build_network(ModelConfig(), train_places, generator=torch.Generator().manual_seed(0)).split("backbone")
    builder = InputBuilder.for_split(split, model=ModelConfig(), places=train_places, device=CPU)
    cached = builder.of_dataset(data.public, NO_AUGMENTATION)
    rows = np.array([5, 0, 47])
    direct = through_stem(split.stem, ImageInputs(data.public, None, CPU).take(rows, None))
    assert isinstance(cached, FeatureInputs)
    torch.testing.assert_close(cached.take(rows, None), direct, rtol=2e-3, atol=2e-3)


def test_features_are_computed_once_and_again_for_other_weights_or_data(tmp_path: Path) -> None:
    places = Places(data_dir=tmp_path, cache_dir=tmp_path)
    crops = _Ones(100)
    for stem, digest, calls in ((1.0, "a", 2), (1.0, "a", 2), (2.0, "a", 4), (2.0, "b", 6)):
        found = cached_features(crops, _stem(stem), data_digest=digest, places=places, private=True)
        assert crops.asked == calls
        assert float(found.features.max()) == pytest.approx(3 * stem)


def test_features_of_private_data_are_for_their_owner_alone(tmp_path: Path) -> None:
    places = Places(data_dir=tmp_path, cache_dir=tmp_path)
    cached_features(_Ones(3), _stem(1.0), data_digest="a", places=places, private=True)
    folder = next(path for path in (tmp_path / "features").iterdir() if path.is_dir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_features_beyond_half_precision_are_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    places = Places(data_dir=tmp_path, cache_dir=tmp_path)
    with pytest.raises(BadInput, match="float16"):
        cached_features(_Ones(3), _stem(1e6), data_digest="a", places=places, private=False)
    assert not [path for path in (tmp_path / "features").iterdir() if path.is_dir()]


def test_no_private_image_can_fail_a_trial_by_features_beyond_half_precision(tmp_path: Path) -> None:
    places = Places(data_dir=tmp_path, cache_dir=tmp_path)
    found = cached_features(_Ones(3), _stem(1e6), data_digest="a", places=places, private=True)
    assert float(found.features.max()) == float(np.finfo(np.float16).max)


def test_augmented_images_are_never_read_from_cached_features(train_places: Places, make_config: Make) -> None:
    data = open_trial_data(make_config("public_only"), train_places, RuntimeFlags())
    split = build_network(ModelConfig(), train_places, generator=torch.Generator().manual_seed(0)).split("backbone")
    builder = InputBuilder.for_split(split, model=ModelConfig(), places=train_places, device=CPU)
    flipping = AugmentationConfig(flip_prob=0.5)
    assert isinstance(builder.of_dataset(data.public, flipping), ImageInputs)
    examples = builder.examples(data.public, flipping)
    draw = examples.draw_geometry(_AlwaysZero(), 2)
    assert draw is not None
    mirrored = examples.batch(np.array([3, 4]), draw)
    plain = examples.batch(np.array([3, 4]), None)
    torch.testing.assert_close(mirrored.keypoints[:, 0, 0], 63 - plain.keypoints[:, 5, 0])
    assert not torch.equal(mirrored.inputs, plain.inputs)


class _AlwaysZero:
    def uniform(self, count: int) -> np.ndarray:
        return np.zeros(count)

    def normal(self, count: int) -> np.ndarray:
        return np.zeros(count)
