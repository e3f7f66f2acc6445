"""Draws skeletons on pictures. Left, right and middle differ in colour, brightness and shape, for people who see colours otherwise.

| part | colour | joint |
|---|---|---|
| the person's left | orange | square |
| the person's right | blue | disc |
| the middle | white | diamond |

A joint with a score below `UNSURE` is hollow, and its lines are thin. Every line has a dark edge, so that it shows on any picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

LEFT, RIGHT, MIDDLE = (230, 159, 0), (0, 114, 178), (255, 255, 255)
"""Orange and blue of Okabe and Ito (2008), which differ for every kind of colour blindness, and white."""
EDGE = (20, 20, 20)
UNSURE = 0.2
PX_PER_LINE = 110.0
"""A person of this many px gets lines one px wide."""

Colour = tuple[int, int, int]
Corners = Callable[[float, float, float], list[tuple[float, float]]]


@dataclass(frozen=True, kw_only=True)
class Side:
    """How the joints of one side look."""

    colour: Colour
    corners: Corners | None


def _square(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    r = 0.9 * radius
    return [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]


def _diamond(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    r = 1.2 * radius
    return [(x, y - r), (x + r, y), (x, y + r), (x - r, y)]


SIDES = {
    "l": Side(colour=LEFT, corners=_square),
    "r": Side(colour=RIGHT, corners=None),
    "": Side(colour=MIDDLE, corners=_diamond),
}


def side_of(joint: str) -> str:
    """`l`, `r`, or nothing for the middle, by a joint's name."""
    first = joint.lower().replace("-", "_").split("_")[0]
    return {"l": "l", "left": "l", "r": "r", "right": "r"}.get(first, "")


def draw_people(
    picture: Image.Image,
    people: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    *,
    joints: Sequence[str],
    lines: Sequence[tuple[int, int]],
) -> Image.Image:
    """A copy of an RGB picture with the skeletons of people on it.

    Args:
        picture: RGB.
        people: keypoints (K, 2) px and scores (K,) of each.
        joints: K names; they say which side a joint belongs to.
        lines: pairs of joints.
    """
    drawn = picture.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    sides = [side_of(joint) for joint in joints]
    for points, scores in people:
        extent = min(float(np.ptp(points, axis=0).max()), max(drawn.size))
        width = max(1, round(extent / PX_PER_LINE), round(max(drawn.size) / 700))
        _draw_lines(pen, points, scores, sides=sides, lines=lines, width=width)
        for (x, y), score, side in zip(points.tolist(), scores.tolist(), sides, strict=True):
            _draw_joint(pen, x, y, side=SIDES[side], radius=1.6 * width + 1, hollow=score < UNSURE)
    return drawn


def _draw_lines(
    pen: ImageDraw.ImageDraw,
    points: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    sides: Sequence[str],
    lines: Sequence[tuple[int, int]],
    width: int,
) -> None:
    for start, end in lines:
        ends = [tuple(points[start]), tuple(points[end])]
        unsure = min(scores[start], scores[end]) < UNSURE
        side = sides[start] or sides[end] if sides[start] in ("", sides[end]) or not sides[end] else ""
        inner = max(1, width // 2) if unsure else width
        pen.line(ends, fill=EDGE, width=inner + 2)
        pen.line(ends, fill=SIDES[side].colour, width=inner)


def _draw_joint(pen: ImageDraw.ImageDraw, x: float, y: float, *, side: Side, radius: float, hollow: bool) -> None:
    fill = None if hollow else side.colour
    edge = side.colour if hollow else EDGE
    if side.corners is None:
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill, outline=edge, width=1)
    else:
        pen.polygon(side.corners(x, y, radius), fill=fill, outline=edge, width=1)
