"""SimCC heads."""

import dataclasses

import pytest
import torch

from dpcore.errors import BadInput
from dpcore.model.head import FlatHead, HeadShape, MarginalHead, build_head, interpolation
from dpcore.model.head_start import coco_mixtures, start_from_heat_maps
from dpcore.pose.codec import SimCCCodec
from dpcore.pose.skeleton import COCO_17, HAND_21, MPII_16


def _shape(**changes: int) -> HeadShape:
    values = {"channels": 218, "grid_height": 24, "grid_width": 24, "height_px": 192, "width_px": 192, "bins_x": 96, "bins_y": 96}
    return HeadShape(**{**values, **changes})


def test_marginal_head_has_8304_parameters_on_movenet_features_as_reference_8_says() -> None:
    assert sum(p.numel() for p in MarginalHead(_shape()).parameters()) == 8304


def test_flat_head_has_114_k_parameters_on_movenet_features_as_reference_8_says() -> None:
    assert round(sum(p.numel() for p in FlatHead(_shape()).parameters()) / 1000) == 114


def test_marginals_are_log_mean_exp_over_rows_and_columns() -> None:
    head = MarginalHead(_shape(channels=1, grid_height=2, grid_width=3, bins_x=3, bins_y=2))
    with torch.no_grad():
        head.to_maps.weight.fill_(1.0)
        head.to_maps.bias.zero_()  # type: ignore[union-attr]
        head.to_x.weight.copy_(torch.eye(3))
        head.to_y.weight.copy_(torch.eye(2))
        head.to_x.bias.zero_()
        head.to_y.bias.zero_()
    maps = torch.tensor([[[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]])
    logits_x, logits_y = head(maps)
    torch.testing.assert_close(logits_x[0, 0], maps[0, 0].exp().mean(dim=0).log())
    torch.testing.assert_close(logits_y[0, 0], maps[0, 0].exp().mean(dim=1).log())


def test_a_sharp_marginal_is_nearly_the_maximum() -> None:
    head = MarginalHead(dataclasses.replace(_shape(channels=16, bins_x=24, bins_y=24), sharpness=1000.0))
    with torch.no_grad():
        head.to_maps.weight.copy_(torch.eye(16)[:, :, None, None])
        head.to_maps.bias.zero_()  # type: ignore[union-attr]
    head.start_interpolating()
    maps = torch.randn(1, 16, 24, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(maps)[0], maps.amax(dim=2), atol=0.01, rtol=0)


def test_interpolation_rows_sum_to_one_and_keep_a_ramp() -> None:
    weights = interpolation(96, 24)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(96))
    ramp = weights @ torch.arange(24, dtype=torch.float32)
    torch.testing.assert_close(ramp[10:80].diff(), torch.full((69,), 0.25))


def test_a_peak_in_a_map_decodes_to_its_place_before_any_training() -> None:
    head = MarginalHead(_shape(channels=17))
    start_from_heat_maps(head, {"heat.out": 17}, MPII_16)
    maps = torch.full((1, 17, 24, 24), -8.0)
    maps[0, COCO_17.index["l_wrist"], 5, 17] = 4.0
    codec = SimCCCodec(height_px=192, width_px=192, split_ratio=0.5, label_sigma_bins=3.0)
    found = codec.decode(*head(maps))[0, MPII_16.index["l_wrist"]]
    torch.testing.assert_close(found, torch.tensor([17 * 8 + 3.5, 5 * 8 + 3.5]), atol=2.0, rtol=0)


def test_every_joint_starts_from_heat_maps_whose_weights_sum_to_one() -> None:
    assert all(sum(mixture.values()) == pytest.approx(1.0) for mixture in coco_mixtures(MPII_16))


def test_a_joint_that_no_heat_map_shows_is_named() -> None:
    with pytest.raises(BadInput, match="shows wrist of hand_21"):
        coco_mixtures(HAND_21)


def test_heat_map_start_without_heat_maps_or_marginals_is_refused() -> None:
    with pytest.raises(BadInput, match=r"heat\.out"):
        start_from_heat_maps(MarginalHead(_shape()), {"b2.add": 24}, MPII_16)
    with pytest.raises(BadInput, match="marginal"):
        start_from_heat_maps(FlatHead(_shape()), {"heat.out": 17}, MPII_16)


def test_flat_head_upsamples_a_coarse_grid_to_stride_eight() -> None:
    head = FlatHead(_shape(channels=4, grid_height=6, grid_width=6))
    assert head(torch.zeros(2, 4, 6, 6))[0].shape == (2, 16, 96)
    assert head.to_x.in_features == 24 * 24


def test_unknown_head_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="marginal, flat"):
        build_head("dense", _shape())
