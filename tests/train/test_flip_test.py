"""The flip test averages a crop's distributions with those of its mirror image, turned back exactly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from planned_trials import handed
from torch import Tensor, nn

from dpcore.config import EvaluationConfig, Places, RuntimeFlags, TrialConfig
from dpcore.data.catalog import open_dataset
from dpcore.inference.reading import PoseReading
from dpcore.inference.readouts import flip_averaged
from dpcore.model.network import build_network
from dpcore.pose.codec import SimCCCodec
from dpcore.pose.skeleton import MPII_16
from dpcore.privacy.randomness import SweepKey
from dpcore.train.inputs import InputBuilder
from dpcore.train.predictions import outputs_of, predict
from dpcore.train.trainer import run_trial

Make = Callable[..., TrialConfig]


def partner_of(joint: int) -> int:
    """The joint that takes a joint's place on a mirrored person."""
    return MPII_16.mirrored[joint]


def mirrored_points(points: Tensor, width_px: int) -> Tensor:
    """What a perfect network finds on the mirror image: each joint at the place of its partner, mirrored."""
    return points[:, [partner_of(joint) for joint in range(16)]] * torch.tensor([-1.0, 1.0]) + torch.tensor([width_px - 1.0, 0.0])


@pytest.mark.parametrize(("width_px", "split_ratio"), [(48, 2.0), (37, 2.0), (37, 1.0), (48, 0.5)])
def test_a_network_that_is_right_on_both_images_is_not_moved_by_a_bin(width_px: int, split_ratio: float) -> None:
    codec = SimCCCodec(height_px=64, width_px=width_px, split_ratio=split_ratio, label_sigma_bins=2.3)
    points = torch.rand((3, 16, 2), generator=torch.Generator().manual_seed(5)) * torch.tensor([width_px - 1.0, 63.0])
    upright = tuple(one.log() for one in codec.encode(points))
    turned = tuple(one.log() for one in codec.encode(mirrored_points(points, width_px)))
    found = flip_averaged(upright, turned, MPII_16)  # type: ignore[arg-type]
    for averaged, alone in zip(found, upright, strict=True):
        torch.testing.assert_close(averaged.exp(), alone.exp(), atol=1e-6, rtol=1e-5)


def test_probabilities_are_averaged_and_not_logits() -> None:
    upright = torch.log(torch.tensor([[[0.9, 0.05, 0.05]] * 16]))
    mirrored = 7.3 + torch.log(torch.tensor([[[0.2, 0.3, 0.5]] * 16]))
    x, y = flip_averaged((upright, upright), (mirrored, mirrored), MPII_16)
    torch.testing.assert_close(x.exp()[0, 3], torch.tensor([0.7, 0.175, 0.125]))
    torch.testing.assert_close(y.exp()[0, 3], torch.tensor([0.55, 0.175, 0.275]))


def test_a_nan_stays_a_nan() -> None:
    lost = torch.full((1, 16, 4), torch.nan)
    assert bool(torch.isnan(flip_averaged((lost, lost), (lost, lost), MPII_16)[0]).all())


def builder_of(config: TrialConfig, places: Places, freeze: str) -> tuple[nn.Module, InputBuilder]:
    split = build_network(config.model, places, generator=torch.Generator().manual_seed(3)).split(freeze)  # type: ignore[arg-type]
    return split.tail, InputBuilder.for_split(split, model=config.model, places=places, device=torch.device("cpu"))


@pytest.mark.parametrize("freeze", ["backbone", "none"])
def test_what_is_said_of_mirrored_pictures_is_mirrored(train_places: Places, make_config: Make, freeze: str) -> None:
    """The law of a flip test, through cached features of mirrored crops and through pixels."""
    config, dataset = make_config(), open_dataset("validation", train_places)
    tail, builder = builder_of(config, train_places, freeze)
    reading = PoseReading.of(config.model, EvaluationConfig(flip=True), MPII_16)
    upright, turned = builder.scored(dataset, reading)
    seen, mirror = next(outputs_of(tail, upright)), next(outputs_of(tail, turned))
    swapped = [partner_of(joint) for joint in range(16)]
    (there_x, there_y), (back_x, back_y) = flip_averaged(seen, mirror, MPII_16), flip_averaged(mirror, seen, MPII_16)
    torch.testing.assert_close(there_x, back_x[:, swapped].flip(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(there_y, back_y[:, swapped], atol=1e-5, rtol=1e-5)
    alone = PoseReading.of(config.model, EvaluationConfig(), MPII_16)
    flipped, plain = predict(tail, (upright, turned), reading)[0], predict(tail, (upright,), alone)[0]
    assert float((flipped - plain).abs().max()) > 0.1
    rows = np.arange(2)
    pixels = dataset.images(rows)[:, :, ::-1]
    assert not np.array_equal(pixels, dataset.images(rows))
    assert len(builder.scored(dataset, alone)) == 1


def test_a_flip_test_changes_the_score_and_not_the_weights(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey
) -> None:
    plain = make_config("public_only", stages__public__steps=40)
    flipped = plain.changed(**{"evaluation.flip": True})
    assert plain.fingerprint() != flipped.fingerprint()
    found = [
        list(run_trial(config, runtime, handed(config, places=train_places, trial_id="t", key=key, folder=None)))[-1]
        for config in (plain, flipped)
    ]
    assert found[0].weights_digest == found[1].weights_digest
    assert found[0].metrics["val/pckh_50"] != found[1].metrics["val/pckh_50"]
