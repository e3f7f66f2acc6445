"""SimCC codec: the round-trip law, geometry of the bins, sub-bin refinement."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpcore.errors import BadInput
from dpcore.pose.codec import WINDOW_SIGMAS, SimCCCodec

CODEC = SimCCCodec(height_px=48, width_px=64, split_ratio=2.0, label_sigma_bins=3.0)


@given(
    ratio=st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]),
    sigma=st.floats(0.5, 6.0),
    x=st.floats(0.0, 63.0),
    y=st.floats(0.0, 47.0),
)
def test_decode_of_encode_stays_within_half_a_bin(ratio: float, sigma: float, x: float, y: float) -> None:
    codec = SimCCCodec(height_px=48, width_px=64, split_ratio=ratio, label_sigma_bins=sigma)
    point = torch.tensor([[[x, y]]])
    decoded = codec.decode(*codec.encode(point))
    assert (decoded - point).abs().max() <= 0.5 / ratio + 1e-4


def test_decode_is_within_a_tenth_of_a_bin_on_logits_of_a_gaussian() -> None:
    point = torch.tensor([[[17.37, 20.11], [40.9, 3.2]]])
    probs_x, probs_y = CODEC.encode(point)
    decoded = CODEC.decode(probs_x.clamp(min=1e-30).log(), probs_y.clamp(min=1e-30).log())
    torch.testing.assert_close(decoded, point, atol=0.1 / CODEC.split_ratio, rtol=0)


def test_bins_are_size_times_ratio() -> None:
    assert (CODEC.bins_x, CODEC.bins_y) == (128, 96)


def test_targets_sum_to_one_and_a_mirrored_keypoint_mirrors_its_target() -> None:
    point = torch.tensor([[[12.3, 8.0]]])
    target, _ = CODEC.encode(point)
    mirrored, _ = CODEC.encode(torch.tensor([[[63 - 12.3, 8.0]]]))
    assert target.sum().item() == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(target.flip(-1), mirrored, atol=1e-5, rtol=1e-3)


def test_a_peak_at_the_border_decodes_to_the_border_bin() -> None:
    logits = torch.zeros(1, 1, 128)
    logits[..., 0] = 5.0
    assert CODEC.decode(logits, torch.zeros(1, 1, 96))[0, 0, 0].item() == pytest.approx(-0.25)
    assert CODEC.decode(logits.flip(-1), torch.zeros(1, 1, 96))[0, 0, 0].item() == pytest.approx(63.25)  # bins tile the crop symmetrically


def test_nan_logits_decode_to_nan_and_constant_logits_to_the_first_bin() -> None:
    logits = torch.zeros(1, 2, 128)
    logits[0, 0, 7] = math.nan
    decoded = CODEC.decode(logits, torch.zeros(1, 2, 96))
    assert decoded[0, 0, 0].isnan()
    assert decoded[0, 1, 0].item() == pytest.approx(-0.25)


def test_contains_takes_the_crop_and_refuses_outside_and_nan() -> None:
    points = torch.tensor([[[-0.5, 0.0], [63.5, 47.5], [-0.6, 0.0], [3.0, 47.6], [math.nan, 1.0]]])
    assert CODEC.contains(points).tolist() == [[True, True, False, False, False]]


@pytest.mark.parametrize("field", ["height_px", "width_px", "split_ratio", "label_sigma_bins"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_settings_that_are_not_positive_are_refused(field: str, value: float) -> None:
    settings = {"height_px": 48, "width_px": 64, "split_ratio": 2.0, "label_sigma_bins": 3.0, field: value}
    with pytest.raises(BadInput, match=field):
        SimCCCodec(**settings)


def test_confidence_is_the_mass_at_the_peak_and_the_lower_of_both_axes() -> None:
    point = torch.tensor([[[17.3, 20.1]]])
    label_x, label_y = (probs.clamp(min=1e-30).log() for probs in CODEC.encode(point))
    even_x, even_y = torch.zeros_like(label_x), torch.zeros_like(label_y)
    assert CODEC.confidence(label_x, label_y).item() == pytest.approx(0.97, abs=0.02)
    beside = round(WINDOW_SIGMAS * CODEC.label_sigma_bins)
    assert CODEC.confidence(label_x, even_y).item() == pytest.approx((beside + 1) / CODEC.bins_y)  # the first bin is the peak
    assert CODEC.confidence(even_x, label_y).item() == pytest.approx((beside + 1) / CODEC.bins_x)


def test_two_equal_peaks_share_the_confidence_and_nan_has_none() -> None:
    first, second = CODEC.encode(torch.tensor([[[10.0, 20.0]]])), CODEC.encode(torch.tensor([[[50.0, 20.0]]]))
    both = ((first[0] + second[0]) / 2).clamp(min=1e-30).log()
    assert CODEC.confidence(both, first[1].clamp(min=1e-30).log()).item() == pytest.approx(0.48, abs=0.02)
    assert CODEC.confidence(torch.full_like(both, math.nan), first[1]).isnan().all()
