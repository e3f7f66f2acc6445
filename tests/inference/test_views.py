"""Views of crops are turned back without a shift, so that a network that is right in each of them is right in their mean."""

import itertools

import pytest
import torch
from torch import Tensor

from dpcore.config import EvaluationConfig, ModelConfig
from dpcore.config.parsing import parse_config
from dpcore.errors import BadInput
from dpcore.inference.fusing import FUSES
from dpcore.inference.maps import JointMaps, MapDecoder
from dpcore.inference.reading import PoseReading
from dpcore.inference.readouts import HeatMapReadout, SimCCReadout, readout_of
from dpcore.inference.views import View, views_of
from dpcore.model.network import codec_of
from dpcore.pose.skeleton import MPII_16

SIDE_PX = 48
MODEL = ModelConfig(input_height_px=SIDE_PX, input_width_px=SIDE_PX, split_ratio=1.0, label_sigma_bins=1.5)
ALL_JOINTS = list(range(16))


def people(count: int = 3, *, seed: int = 7, reach_px: float = 12.0) -> Tensor:
    """Keypoints (B, 16, 2) px around the middle of a crop, so that no view cuts one off."""
    drawn = torch.rand((count, 16, 2), generator=torch.Generator().manual_seed(seed))
    return (SIDE_PX - 1) / 2 + (2 * drawn - 1) * reach_px


def seen_in(view: View, points: Tensor, side_px: int) -> Tensor:
    """Where the joints of a person lie in a view of `side_px`, by the words of `View` alone."""
    angle = torch.deg2rad(torch.tensor(view.rotation_deg))
    x, y = ((points - (SIDE_PX - 1) / 2) * (side_px / SIDE_PX if view.grows else view.scale)).unbind(-1)
    turned = torch.stack([angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x], dim=-1)
    if view.flip:
        turned = turned[:, list(MPII_16.mirrored)] * torch.tensor([-1.0, 1.0])
    return turned + (side_px - 1) / 2


def logits_at(points: Tensor, side_px: int, sigma_px: float = 2.0) -> Tensor:
    """Gaussian logit maps (B,16,side,side) around keypoints."""
    cells = torch.arange(side_px, dtype=torch.float32)
    x, y = (-0.5 * ((cells - points[..., axis, None]) / sigma_px) ** 2 for axis in (0, 1))
    return y.unsqueeze(-1) + x.unsqueeze(-2)


EVERY_VIEW = [
    View(rotation_deg=float(angle), scale=scale, flip=flip, grows=grows)
    for angle, scale, flip, grows in itertools.product((0, 30, 90, 180, 270), (1.0, 4 / 3), (False, True), (False, True))
]


@pytest.mark.parametrize("view", EVERY_VIEW, ids=lambda view: view.name)
def test_a_network_that_is_right_in_a_view_is_right_on_the_crop(view: View) -> None:
    points = people()
    side_px = view.of_images(torch.zeros(1, 3, SIDE_PX, SIDE_PX)).shape[-1]
    said = JointMaps(logits=logits_at(seen_in(view, points, side_px), side_px), confidence=torch.ones(3, 16))
    back = view.upright(said.probabilities(), mirrored=MPII_16.mirrored, grid=(SIDE_PX, SIDE_PX))
    found, _ = MapDecoder(height_px=SIDE_PX, width_px=SIDE_PX, window_px=6.0).points(back)
    assert float((found - points).abs().max()) < 0.15
    torch.testing.assert_close(back.sum(dim=(2, 3)), torch.ones(3, 16))


@pytest.mark.parametrize("view", EVERY_VIEW, ids=lambda view: view.name)
def test_pixels_lie_where_the_view_says(view: View) -> None:
    """A bright spot of three pixels in the crop is found in the view's pixels."""
    point = people(1)[:, :1]
    crop = 2 * torch.exp(logits_at(point, SIDE_PX)).expand(1, 3, SIDE_PX, SIDE_PX) - 1
    pixels = (view.of_images(crop)[:, :1] + 1) / 2
    found, _ = MapDecoder(height_px=pixels.shape[2], width_px=pixels.shape[3], window_px=8.0).points(pixels / pixels.sum())
    unswapped = View(rotation_deg=view.rotation_deg, scale=view.scale, grows=view.grows)
    wanted = seen_in(unswapped, point, pixels.shape[3])
    if view.flip:
        wanted = torch.stack([pixels.shape[3] - 1 - wanted[..., 0], wanted[..., 1]], dim=-1)
    assert float((found - wanted).abs().max()) < 0.15


def test_quarter_turns_move_pixels_and_interpolate_nothing() -> None:
    crop = torch.rand(2, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(1))
    assert torch.equal(View(rotation_deg=90.0).of_images(crop), torch.rot90(crop, 1, dims=(2, 3)))
    assert torch.equal(View(rotation_deg=270.0, flip=True).of_images(crop), torch.rot90(crop, 3, dims=(2, 3)).flip(-1))
    tall = crop[..., :32]
    assert torch.equal(View(rotation_deg=180.0).of_images(tall), tall.flip(2, 3))
    assert View(rotation_deg=90.0).of_images(tall).shape == tall.shape


def test_what_leaves_the_crop_is_left_out() -> None:
    """A view that is enlarged on the spot shows the middle alone; a map that is wholly beyond the crop says nothing."""
    narrow, wide = View(scale=2.0), View(scale=0.5)
    corner = torch.zeros(1, 1, 8, 8)
    corner[..., 0, 0] = 1
    back = narrow.upright(corner, mirrored=(0,), grid=(8, 8))
    assert back[0, 0].flatten().argmax() == 2 * 8 + 2
    torch.testing.assert_close(wide.upright(corner, mirrored=(0,), grid=(8, 8)), torch.full((1, 1, 8, 8), 1 / 64))


def test_views_are_counted_and_named_once() -> None:
    evaluation = EvaluationConfig(flip=True, rotations_deg=(0, 90, -90), scales=(1, 1.25))
    views = views_of(evaluation, grows=True)
    assert len(views) == evaluation.views == 12 == len({view.name for view in views})
    assert views[0] == View(grows=True)
    assert {view.rotation_deg for view in views} == {0.0, 90.0, 270.0}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rotations_deg": [0, 360]}, "each angle once"),
        ({"scales": [1, 1]}, "each scale once"),
        ({"scales": [9]}, "0.25 to 4"),
        ({"rotations_deg": []}, "at least 1"),
        ({"fuse": "median"}, "'mean', 'maps' or 'best'"),
        ({"temperature": 0}, "greater than 0"),
    ],
)
def test_an_evaluation_that_means_nothing_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_config(EvaluationConfig, values)


def test_the_map_of_simcc_logits_gives_their_own_keypoints() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(4, 16, SIDE_PX, generator=generator), 3 * torch.randn(4, 16, SIDE_PX, generator=generator)
    readout = readout_of(MODEL, MPII_16)
    assert isinstance(readout, SimCCReadout)
    maps = readout.maps(logits)
    through_maps, _ = readout.points(maps.probabilities())
    torch.testing.assert_close(through_maps, codec_of(MODEL).decode(*logits), atol=1e-3, rtol=0)
    torch.testing.assert_close(maps.confidence, codec_of(MODEL).confidence(*logits))


def test_a_flip_test_through_maps_is_the_direct_one() -> None:
    generator = torch.Generator().manual_seed(4)
    seen = [tuple(2 * torch.randn(2, 16, SIDE_PX, generator=generator) for _ in "xy") for _ in range(2)]
    direct = PoseReading.of(MODEL, EvaluationConfig(flip=True), MPII_16)
    assert direct.is_direct
    # a temperature that is one in float32, and not in Python
    through_maps = PoseReading.of(MODEL, EvaluationConfig(flip=True, temperature=1 + 1e-12), MPII_16)
    assert not through_maps.is_direct
    marginal = through_maps.fused(seen)
    x, _ = direct.readout.points_of(seen[0], seen[1])  # type: ignore[attr-defined]
    torch.testing.assert_close(x, codec_of(MODEL).decode(marginal.sum(2).log(), marginal.sum(3).log()), atol=1e-3, rtol=0)


def test_fusing_weighs_views_by_their_mean_confidence() -> None:
    sure, unsure = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    sure[..., 0] = unsure[..., 1] = 1
    said = [(sure, torch.tensor([[0.81, 0.04]])), (unsure, torch.tensor([[0.16, 0.36]]))]
    torch.testing.assert_close(FUSES["mean"](8.0)(said)[0, :, 0, 0], torch.tensor([0.5, 0.5]))
    first, second = 0.425**3, 0.26**3
    torch.testing.assert_close(FUSES["maps"](3.0)(said)[0, :, 0, 0], torch.full((2,), first / (first + second)))
    assert torch.equal(FUSES["best"](8.0)(said), sure)
    assert torch.equal(FUSES["best"](8.0)(said[::-1]), sure)


def test_a_joint_that_only_the_mirror_image_shows_comes_back_under_its_own_name() -> None:
    """Only the mirror image sees the right wrist, and calls it the left one there."""
    reading = PoseReading.of(MODEL, EvaluationConfig(flip=True), MPII_16)
    readout = HeatMapReadout(decoder=MapDecoder(height_px=SIDE_PX, width_px=SIDE_PX, window_px=3.0), skeleton=MPII_16)
    reading = PoseReading(readout=readout, views=reading.views, fuse="mean", confidence_power=1.0, temperature=1.0, size_px=reading.size_px)
    points = people(1)
    right, left = 10, MPII_16.mirrored[10]
    upright = logits_at(points, SIDE_PX)
    upright[:, right] = 0
    turned = torch.zeros_like(upright)
    turned[:, left] = logits_at(seen_in(reading.views[1], points, SIDE_PX), SIDE_PX)[:, left]
    found, confidence = reading.points([upright, turned])
    assert float((found[0, [right, left]] - points[0, [right, left]]).abs().max()) < 0.3
    assert (confidence[0, [right, left]] > 0.3).all()


def test_a_map_of_nan_stays_one_and_disturbs_no_other() -> None:
    said = JointMaps(logits=torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)), confidence=torch.ones(2, 3))
    said.logits[0, 1] = torch.nan
    points, mass = MapDecoder(height_px=5, width_px=5, window_px=1).points(said.probabilities())
    assert bool(points[0, 1].isnan().all())
    assert bool(mass[0, 1].isnan())
    assert int(points.isnan().any(-1).sum()) == 1


@pytest.mark.parametrize("cells", [12, 24, 96])
def test_a_keypoint_is_found_between_cells_of_any_grid(cells: int) -> None:
    points = people()
    on_grid = (points + 0.5) * cells / SIDE_PX - 0.5
    maps = JointMaps(logits=logits_at(on_grid, cells, sigma_px=1.0), confidence=torch.ones(3, 16)).probabilities()
    found, _ = MapDecoder(height_px=SIDE_PX, width_px=SIDE_PX, window_px=12.0 * 12 / cells).points(maps)
    assert float((found - points).abs().max()) < 0.5 * SIDE_PX / cells / 4
