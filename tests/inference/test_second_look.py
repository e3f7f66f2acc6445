"""A second look at a crop: a square around the person, upright, and its maps brought back to the crop."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpcore.config.model import SecondLookConfig
from dpcore.inference.asked import AskedNetwork
from dpcore.inference.maps import JointMaps, MapDecoder
from dpcore.inference.reading import PoseReading
from dpcore.inference.second_look import SMALLEST_SQUARE_FRAC, PersonSquare, SecondLook
from dpcore.inference.views import View
from dpcore.pose.skeleton import COCO_17

SIZE_PX = (96, 128)
DECODER = MapDecoder(height_px=96, width_px=128, window_px=8.0)


def person(angle_deg: float = 0.0, middle_px: tuple[float, float] = (60.0, 50.0)) -> Tensor:
    """Keypoints (1, 17, 2) px of somebody 40 px tall who stands, then is turned clockwise."""
    heights = {"nose": -18, "eye": -20, "ear": -18, "shoulder": -12, "elbow": -6, "wrist": 0, "hip": 2, "knee": 11, "ankle": 20}
    sides = {"nose": 0, "eye": 2, "ear": 4, "shoulder": 7, "elbow": 9, "wrist": 10, "hip": 5, "knee": 6, "ankle": 6}
    standing = torch.zeros(1, 17, 2)
    for name, joint in COCO_17.index.items():
        part = name.removeprefix("l_").removeprefix("r_")
        standing[0, joint] = torch.tensor([sides[part] * (1 if name.startswith("l_") else -1), heights[part]], dtype=torch.float32)
    turn = torch.deg2rad(torch.tensor(angle_deg))
    matrix = torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])
    return standing @ matrix.T + torch.tensor(middle_px)


def picture_of(points: Tensor, size_px: tuple[int, int] = SIZE_PX) -> Tensor:
    """Crops (B,3,H,W) in [-1, 1]: black, with a spot of light at each of points (B, 2)."""
    rows, columns = torch.arange(size_px[0], dtype=torch.float32)[:, None], torch.arange(size_px[1], dtype=torch.float32)
    squared = (rows - points[:, 1, None, None]).square() + (columns - points[:, 0, None, None]).square()
    return (2 * torch.exp(-0.5 * squared / 4.0) - 1)[:, None].repeat(1, 3, 1, 1)


def light(images: Tensor) -> Tensor:
    """A network that takes every joint for the light: maps of logits (B, 17, side, side)."""
    return 30 * images[:, :1].expand(-1, 17, -1, -1)


@dataclasses.dataclass(frozen=True)
class AsSaid:
    """A readout of logits as they are. Its confidence in a joint is the joint's number, so that an exchange of sides shows."""

    mirrored: tuple[int, ...] = COCO_17.mirrored

    def maps(self, outputs: Tensor) -> JointMaps:
        return JointMaps(logits=outputs, confidence=torch.arange(17.0).expand(len(outputs), 17))

    def points(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        return DECODER.points(maps)


def reading_of(readout: Any) -> PoseReading:
    return PoseReading(readout=readout, views=(View(),), fuse="mean", confidence_power=8.0, temperature=1.0, size_px=SIZE_PX)


@pytest.mark.parametrize("angle_deg", [0.0, 35.0, 90.0, 180.0, 250.0])
@pytest.mark.parametrize("turned_deg", [0.0, 20.0, -20.0])
def test_what_a_network_sees_in_the_square_lies_there_on_the_crop(angle_deg: float, turned_deg: float) -> None:
    found, spot = person(angle_deg), person(angle_deg)[:, COCO_17.index["r_wrist"]]
    look = SecondLook(config=SecondLookConfig(rotations_deg=(turned_deg,), side_px=128), flip=True)
    plain, mirrored = look.upright(picture_of(spot), found, light, reading_of(AsSaid()), grid=SIZE_PX)
    for maps, _ in (plain, mirrored):
        torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(1, 17))
        points, _ = DECODER.points(maps)
        torch.testing.assert_close(points, spot[:, None].expand(1, 17, 2), atol=0.3, rtol=0)
    torch.testing.assert_close(plain[1][0], torch.arange(17.0))
    torch.testing.assert_close(mirrored[1][0], torch.arange(17.0)[list(COCO_17.mirrored)])


@pytest.mark.parametrize("angle_deg", [0.0, 35.0, 180.0, 250.0])
def test_the_torso_is_upright_and_the_person_fills_the_square_but_for_the_margin(angle_deg: float) -> None:
    found = person(angle_deg)

    def seen_at(joint: str, turned_deg: float = 0.0) -> Tensor:
        square = PersonSquare.around(found, size_px=SIZE_PX, turned_deg=turned_deg, margin=1.25)
        view = square.of_images(picture_of(found[:, COCO_17.index[joint]]), 200)
        return (view[0, 0] == view[0, 0].max()).nonzero()[0].flip(0).float()

    shoulder, hip, ankle = seen_at("l_shoulder"), seen_at("l_hip"), seen_at("l_ankle")
    px_of_view = 200 / (40 * 1.25)  # the person is 40 px tall
    torch.testing.assert_close(hip[1] - shoulder[1], torch.tensor(14 * px_of_view), atol=2.0, rtol=0)
    torch.testing.assert_close(shoulder[0] - hip[0], torch.tensor(2 * px_of_view), atol=2.0, rtol=0)
    torch.testing.assert_close(ankle[1], torch.tensor(100 + 20 * px_of_view), atol=2.0, rtol=0)
    # counterclockwise as seen, like a view of `rotations_deg`: the ankle at the bottom swings to the right
    assert seen_at("l_ankle", turned_deg=20.0)[0] > ankle[0] + 15


def test_without_a_torso_up_is_the_crops_and_keypoints_that_fell_together_are_not_enlarged_without_end() -> None:
    together = torch.full((1, 17, 2), 40.0)
    square = PersonSquare.around(together, size_px=SIZE_PX, turned_deg=0.0, margin=1.25)
    torch.testing.assert_close(square.axes, torch.eye(2)[None])
    assert float(2 * square.half_px) == SMALLEST_SQUARE_FRAC * 128
    lost = PersonSquare.around(together - 10_000, size_px=SIZE_PX, turned_deg=0.0, margin=1.25)
    assert bool((lost.of_images(torch.ones(1, 3, *SIZE_PX), 64) == -1).all())  # black, as beyond every crop


class LooksForLight(nn.Module):
    """In place of a network's features; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return light(images)


def asking(second: SecondLook | None) -> AskedNetwork:
    features: Any = LooksForLight()
    return AskedNetwork(features, reading_of(AsSaid()), second=second, precision="fp32").eval()


def test_each_crop_is_looked_at_again_and_no_crop_changes_anothers_numbers() -> None:
    spots = torch.tensor([[30.0, 40.0], [70.0, 60.0], [100.0, 20.0]])
    look = SecondLook(config=SecondLookConfig(side_px=128), flip=True)
    network, once = asking(look), asking(None)
    together = network(picture_of(spots))
    alone = torch.cat([network(crop) for crop in torch.split(picture_of(spots), 1)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    once(picture_of(spots))
    assert (network.features.asked, once.features.asked) == (2 * 3 * (1 + 6), 3)
    found = (together[:, :34, 0, 0].unflatten(1, (2, 17)).mT * 64 + torch.tensor([63.5, 47.5])).mean(dim=1)
    torch.testing.assert_close(found, spots, atol=0.5, rtol=0)


def test_a_further_look_goes_to_the_square_that_all_views_before_it_say() -> None:
    squares: list[Tensor] = []

    class Remembers(LooksForLight):
        def forward(self, images: Tensor) -> Tensor:
            squares.append(images)
            return super().forward(images)

    features: Any = Remembers()
    look = SecondLook(config=SecondLookConfig(rotations_deg=(0.0,), side_px=64, times=3), flip=False)
    AskedNetwork(features, reading_of(AsSaid()), second=look, precision="fp32").eval()(picture_of(torch.tensor([[30.3, 40.6]])))
    assert [tuple(images.shape[2:]) for images in squares] == [SIZE_PX, (64, 64), (64, 64), (64, 64)]
    first, second = (images - squares[1] for images in squares[2:])
    assert float(first.abs().max()) > 1e-3  # the first look moved the middle of the square
    assert not torch.equal(first, second)


def test_what_is_no_number_stays_none() -> None:
    unknown = picture_of(torch.tensor([[30.0, 40.0]])) * torch.nan
    assert bool(asking(SecondLook(config=SecondLookConfig(), flip=False))(unknown)[:, :34].isnan().all())
