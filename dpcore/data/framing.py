"""How stored crops are shown to a network: resized and zoomed about their middle, or turned by quarters.

A frame acts on one record at a time: its pixels and its labels. So it adds nothing to the sensitivity of a sum over records.

Shapes: B examples, K joints, H W pixels. Pixel centres lie at integers, so the middle of W pixels is (W - 1) / 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpcore.data.crops import CropBox

Rows = NDArray[np.integer]
Points = NDArray[np.floating]


class CropFrame(Protocol):
    """Shows crops otherwise than they are stored."""

    @property
    def mark(self) -> str:
        """For keys: equal exactly for frames that show the same. It tells nothing of the records."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of what is shown."""

    @property
    def zoom(self) -> float:
        """By which lengths grow."""

    @property
    def crop_zoom(self) -> float:
        """By which the part of a picture that is shown shrinks: the margin around a person is divided by it."""

    def of_images(self, images: NDArray[np.uint8], rows: Rows) -> NDArray[np.uint8]:
        """(B, H', W', 3) of crops (B, H, W, 3), which are those of `rows`."""

    def of_points(self, points: Points, rows: Rows) -> NDArray[np.float64]:
        """(B, K, 2) px of what is shown, of px (B, K, 2) of the crops."""

    def back(self, points: Points, rows: Rows) -> NDArray[np.float64]:
        """The inverse of `of_points`."""


@dataclass(frozen=True, kw_only=True)
class Resized:
    """The middle of each crop, resized to the network's input; black where it reaches beyond the crop.

    Attributes:
        stored_px: height and width of the crops.
        size_px: of the input. Crops keep their aspect: the side that fits decides.
        crop_zoom: 1 shows the whole crop, more its middle, less a margin around it.
    """

    stored_px: tuple[int, int]
    size_px: tuple[int, int]
    crop_zoom: float

    @property
    def mark(self) -> str:
        return f"resized {self.size_px[0]}x{self.size_px[1]} {self.crop_zoom!r}"

    @property
    def zoom(self) -> float:
        return self.crop_zoom * min(new / old for new, old in zip(self.size_px, self.stored_px, strict=True))

    def of_images(self, images: NDArray[np.uint8], rows: Rows) -> NDArray[np.uint8]:
        del rows  # the same for all
        box = self._box
        return np.stack([box.cut(Image.fromarray(one)) for one in images]) if len(images) else np.empty((0, *self.size_px, 3), np.uint8)

    def of_points(self, points: Points, rows: Rows) -> NDArray[np.float64]:
        del rows
        return self._box.to_crop(points)

    def back(self, points: Points, rows: Rows) -> NDArray[np.float64]:
        del rows
        return self._box.to_photograph(points)

    @property
    def _box(self) -> CropBox:
        """As `CropBox` lays it, a photograph's middle (W - 1) / 2 comes to (W' - 1) / 2."""
        height, width = self.stored_px
        shift = 0.5 / self.zoom
        centre = ((width - 1) / 2 + shift, (height - 1) / 2 + shift)
        return CropBox(centre=centre, box_px=min(self.size_px) / self.zoom, height_px=self.size_px[0], width_px=self.size_px[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Turned:
    """Each square crop turned counterclockwise by quarters of its own. Pixels move, and nothing is interpolated.

    Attributes:
        side_px: of the crops.
        mark: names what chose the turns, and never the turns: those of private people are facts about them.
        turns: (N,) 0 … 3, of all rows of the dataset.
    """

    side_px: int
    mark: str
    turns: NDArray[np.int8] = field(repr=False)

    @property
    def size_px(self) -> tuple[int, int]:
        return self.side_px, self.side_px

    @property
    def zoom(self) -> float:
        return 1.0

    @property
    def crop_zoom(self) -> float:
        return 1.0

    def of_images(self, images: NDArray[np.uint8], rows: Rows) -> NDArray[np.uint8]:
        return turned_images(images, self.turns[rows])

    def of_points(self, points: Points, rows: Rows) -> NDArray[np.float64]:
        return self._rotated(points, self.turns[rows])

    def back(self, points: Points, rows: Rows) -> NDArray[np.float64]:
        return self._rotated(points, -self.turns[rows])

    def _rotated(self, points: Points, turns: NDArray[np.int8]) -> NDArray[np.float64]:
        """Counterclockwise as seen, y down: right becomes up."""
        middle = (self.side_px - 1) / 2
        x, y = np.moveaxis(np.asarray(points, dtype=np.float64) - middle, -1, 0)
        quarter = (turns % 4)[:, None]
        new_x = np.choose(quarter, [x, y, -x, -y])
        new_y = np.choose(quarter, [y, -x, -y, x])
        return np.stack([new_x, new_y], axis=-1) + middle


def turned_images(images: NDArray[np.uint8], turns: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Square images (B, H, H, 3), each turned counterclockwise by its quarters (B,)."""
    out = images.copy()
    for quarters in (1, 2, 3):
        here = turns % 4 == quarters
        out[here] = np.rot90(images[here], quarters, axes=(1, 2))
    return out
