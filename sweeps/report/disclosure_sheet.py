"""Draws a picture sheet of public views under attack. Each split has a line of people: original, public view, reconstruction.

The people are PUBLIC test people, evenly spaced, never private ones. Synthetic people may appear in the report's folder.
Photographs go only to MLflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.privacy.disclosure import Disclosure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dpcore.disclosure.measure import Measured, Samples

FILE = "disclosure_sheet.png"
PEOPLE = 3
PICTURES = (("originals", "original"), ("published", "public view"), ("restored", "reconstruction"))
CELL_INCHES = 1.05
LABEL_INCHES = 1.95


@dataclass(frozen=True, kw_only=True)
class DisclosureSheet:
    """A written sheet.

    Attributes:
        path: the PNG.
        mlflow_only: it shows photographs of people. Remove the file once MLflow has it.
    """

    path: Path
    mlflow_only: bool


def save_disclosure_sheet(measured: Sequence[Measured], *, shown: Path, sealed: Path) -> DisclosureSheet:
    """Writes the sheet of all splits.

    Args:
        measured: one per line.
        shown: folder for a sheet that anyone may see.
        sealed: folder, made with mode 0700, for a sheet that waits for MLflow.

    Raises:
        Corrupt: the stored pictures cannot be read.
    """
    lines = [(one.disclosure, one.samples()) for one in measured]
    photographs = not all(samples.synthetic for _, samples in lines)
    folder = sealed if photographs else shown
    folder.mkdir(parents=True, exist_ok=True, mode=0o700 if photographs else 0o777)
    path = folder / FILE
    draw_disclosure_sheet(lines).savefig(path, dpi=120, metadata={"Software": None})
    return DisclosureSheet(path=path, mlflow_only=photographs)


def draw_disclosure_sheet(lines: Sequence[tuple[Disclosure, Samples]]) -> Figure:
    """Draws one line per split with its numbers on the left. Each person keeps one column, so splits can be compared downwards."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    columns = PEOPLE * len(PICTURES)
    width = LABEL_INCHES + CELL_INCHES * columns
    figure = Figure(figsize=(width, CELL_INCHES * len(lines) + 0.45), layout=layout)
    ratios = [LABEL_INCHES / CELL_INCHES, *[1.0] * columns]
    grid: Any = figure.subplots(len(lines), columns + 1, squeeze=False, width_ratios=ratios)
    for axes, (disclosure, samples) in zip(grid, lines, strict=True):
        axes[0].axis("off")
        axes[0].text(0.0, 0.5, _label(disclosure), fontsize=8, va="center", ha="left", linespacing=1.35)
        _draw_people(axes[1:], samples)
    for person in range(PEOPLE):
        for offset, (_, title) in enumerate(PICTURES):
            grid[0, 1 + person * len(PICTURES) + offset].set_title(title, fontsize=7, pad=2)
    title = f"public views under attack: PUBLIC people of {lines[0][1].dataset}; no attacker was trained on them"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure


def _draw_people(axes: Any, samples: Samples) -> None:
    for place in axes:
        place.axis("off")
    for person in range(min(PEOPLE, len(samples.originals))):
        for offset, (stack, _) in enumerate(PICTURES):
            axes[person * len(PICTURES) + offset].imshow(getattr(samples, stack)[person], interpolation="nearest")


def _label(one: Disclosure) -> str:
    value = "–" if one.disclosure is None else f"{one.disclosure:.2f}"
    psnr = "∞" if one.best.psnr_db is None else f"{one.best.psnr_db:.1f} dB"
    lines = [" + ".join(one.splits), f"disclosure {value}", f"PSNR {psnr}, SSIM {one.best.ssim:.2f}"]
    return "\n".join(lines if one.warning is None else [*lines, "! nearly shows the image"])
