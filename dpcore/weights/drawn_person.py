"""A drawn person for checks of imported networks: the same bytes on every machine, because all arithmetic is on integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNITS = 64
"""The drawing's own units over the side of the picture."""

_SKIN, _SHIRT, _TROUSERS, _SHOE, _HAIR, _DARK = (214, 164, 132), (178, 42, 48), (38, 52, 110), (60, 44, 36), (66, 44, 30), (30, 24, 22)
# (from x, y, to x, y, radius in quarters of a unit, colour), painted in this order. A person who faces the viewer and waves.
_STROKES = (
    ((29, 37), (26, 49), 9, _TROUSERS),
    ((26, 49), (25, 58), 7, _TROUSERS),
    ((35, 37), (39, 48), 9, _TROUSERS),
    ((39, 48), (40, 58), 7, _TROUSERS),
    ((25, 59), (22, 60), 5, _SHOE),
    ((40, 59), (43, 60), 5, _SHOE),
    ((27, 22), (29, 36), 11, _SHIRT),
    ((37, 22), (35, 36), 11, _SHIRT),
    ((32, 22), (32, 36), 12, _SHIRT),
    ((26, 21), (21, 29), 6, _SHIRT),
    ((21, 29), (17, 36), 5, _SKIN),
    ((17, 36), (17, 37), 6, _SKIN),
    ((38, 21), (46, 23), 6, _SHIRT),
    ((46, 23), (49, 14), 5, _SKIN),
    ((49, 13), (49, 12), 6, _SKIN),
    ((32, 17), (32, 20), 7, _SKIN),
    ((32, 9), (32, 10), 19, _HAIR),
    ((32, 11), (32, 14), 16, _SKIN),
    ((30, 11), (30, 11), 3, _DARK),
    ((34, 11), (34, 11), 3, _DARK),
    ((32, 13), (32, 14), 2, (190, 134, 104)),
    ((31, 16), (33, 16), 2, (150, 60, 60)),
)


def drawn_person(side_px: int) -> NDArray[np.uint8]:
    """A person in front of a wall, (side, side, 3) RGB.

    Args:
        side_px: a multiple of 64.
    """
    unit = side_px // UNITS
    rows, columns = np.mgrid[0:side_px, 0:side_px].astype(np.int64)
    picture = np.stack([150 + rows * 40 // side_px, 160 + columns * 30 // side_px, 165 - rows * 30 // side_px], axis=-1)
    picture[rows > 57 * unit] = (112, 98, 84)
    for start, end, radius, colour in _STROKES:
        picture[_near_segment(rows, columns, start, end, unit=unit, radius=radius)] = colour
    return picture.astype(np.uint8)


def _near_segment(
    rows: NDArray[np.int64], columns: NDArray[np.int64], start: tuple[int, int], end: tuple[int, int], *, unit: int, radius: int
) -> NDArray[np.bool_]:
    """Where a pixel is at most `radius` quarter units from the segment: distances are compared squared, times the squared length."""
    x, y = columns - start[0] * unit, rows - start[1] * unit
    dx, dy = (end[0] - start[0]) * unit, (end[1] - start[1]) * unit
    length = dx * dx + dy * dy
    if length == 0:
        return np.asarray(16 * (x * x + y * y) <= (radius * unit) ** 2)
    along = np.clip(x * dx + y * dy, 0, length)
    off_x, off_y = x * length - along * dx, y * length - along * dy
    return np.asarray(16 * (off_x * off_x + off_y * off_y) <= (radius * unit * length) ** 2)
