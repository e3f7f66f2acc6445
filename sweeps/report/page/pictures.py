"""Crops with the winner's skeletons for the page: the picture as PNG in the page itself, lines and joints as SVG above it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpcore.errors import DpsweepError
from sweeps.records.spec import RUN_TRIAL
from sweeps.report.contact_sheet import SeenCrops, hits, private_source, see_crops

if TYPE_CHECKING:
    from sweeps.records.spec import SweepSpec
    from sweeps.report.comparison import Comparison

MOST_CROPS = 12
MOST_PX = 160
"""Longer side of a picture in the page: a sheet of photographs stays far below a megabyte."""


@dataclass(frozen=True, kw_only=True)
class CropCell:
    """One crop: the picture with its skeletons as SVG, and how many joints are hits."""

    svg: str
    hits: str


@dataclass(frozen=True, kw_only=True)
class CropSheet:
    """The crops of one ε, or why there are none."""

    epsilon: float
    crops: str
    cells: tuple[CropCell, ...] = ()
    reason: str = ""


def draw_pictures(comparisons: Sequence[Comparison], spec: SweepSpec, *, private: bool = False) -> tuple[CropSheet, ...]:
    """One sheet per ε that has a winner. `private`: on the pictures that it was trained on, because somebody asked for them.

    Pictures of real people stand only where they were asked for: a page is a file that is passed on.
    """
    found = []
    for one in comparisons if spec.trial_function == RUN_TRIAL else ():  # others save no model
        if one.winner is None:
            continue
        try:
            source = private_source(one.winner.config, spec.places) if private else None
            seen = see_crops(one.winner, one.epsilon, spec, source)
        except DpsweepError as error:
            found.append(CropSheet(epsilon=one.epsilon, crops="no pictures", reason=f"no pictures: {error}"))
            continue
        if seen.source.shows_people and not private:
            reason = (
                f"the crops of {seen.source.name} are photographs of people: they are drawn in MLflow (contact_sheets), and nowhere else"
            )
            found.append(CropSheet(epsilon=one.epsilon, crops=f"crops of {seen.source.name}", reason=reason))
            continue
        found.append(CropSheet(epsilon=one.epsilon, crops=_said(seen, private=private), cells=_cells(seen)))
    return tuple(found)


def _said(seen: SeenCrops, *, private: bool) -> str:
    return f"private pictures of {seen.source.name}" if private else f"crops of {seen.source.name}"


def _cells(seen: SeenCrops) -> tuple[CropCell, ...]:
    shown = np.unique(np.linspace(0, len(seen.rows) - 1, min(MOST_CROPS, len(seen.rows))).astype(np.int64))
    images = seen.dataset.images(seen.rows[shown])
    return tuple(
        CropCell(
            svg=_crop(seen, int(seen.rows[number]), image, seen.predictions[number]),
            hits=hits(seen.dataset, int(seen.rows[number]), seen.predictions[number]),
        )
        for number, image in zip(shown, images, strict=True)
    )


def _crop(seen: SeenCrops, row: int, image: NDArray[np.uint8], predicted: NDArray[np.float32]) -> str:
    height, width = image.shape[:2]
    unit = max(height, width) / 100.0
    lines = seen.dataset.skeleton.line_places
    label, visible = seen.dataset.keypoints[row], seen.dataset.visible[row]
    finite = [bool(np.isfinite(point).all()) for point in predicted]
    guess = _strokes(predicted, finite, lines)
    parts = [
        f'<image href="{_data_uri(image)}" width="{width}" height="{height}"/>',
        f'<path class="under" stroke-width="{2.6 * unit:.2f}" d="{guess}"/>',
        f'<path class="label" stroke-width="{1.1 * unit:.2f}" d="{_strokes(label, [bool(one) for one in visible], lines)}"/>',
        f'<path class="guess" stroke-width="{1.4 * unit:.2f}" d="{guess}"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{1.5 * unit:.2f}" fill="#ff5fa2"/>' for x, y in predicted[finite]),
    ]
    said = f"a crop of {seen.source.name} with the predicted skeleton: {hits(seen.dataset, row, predicted)} joints are hits"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{said}">{"".join(parts)}</svg>'


def _strokes(keypoints: NDArray[np.floating], drawn: Sequence[bool], lines: Sequence[tuple[int, int]]) -> str:
    found = []
    for start, end in lines:
        if drawn[start] and drawn[end]:
            (x1, y1), (x2, y2) = keypoints[start], keypoints[end]
            found.append(f"M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}")
    return "".join(found)


def _data_uri(image: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((MOST_PX, MOST_PX))
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
